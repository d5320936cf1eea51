package auth

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const open = "open sesame"

func TestSecretIsNeverPrinted(t *testing.T) {
	secret := Secret(open)
	keys := newKeys("", &keyRing{keys: []key{{"00000000", secret}}})
	holders := []any{
		secret, &secret, keys, *keys,
		Attempt{Account: "alice", Secret: secret},
		&Claim{attempt: Attempt{Secret: secret}, password: secret},
	}
	shapes := []string{open, hex.EncodeToString([]byte(open)), strings.ToUpper(hex.EncodeToString([]byte(open))), "111 112", "6f 70", "0x6f"}
	for _, holder := range holders {
		// All but %p, which asks no type; go vet refuses it for what isn't a pointer.
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%08b", "%t", "%e"} {
			printed := fmt.Sprintf(verb, holder)
			for _, shape := range shapes {
				if strings.Contains(printed, shape) {
					t.Errorf("%T under %s shows the secret", holder, verb)
				}
			}
			if !strings.Contains(printed, stars) {
				t.Errorf("%T under %s has no stars", holder, verb)
			}
		}
	}
}

func TestSecretIsNeverMarshalled(t *testing.T) {
	if _, err := json.Marshal(struct{ S Secret }{Secret(open)}); err == nil {
		t.Error("json: no error")
	}
	if err := gob.NewEncoder(new(bytes.Buffer)).Encode(Secret(open)); err == nil {
		t.Error("gob: no error")
	}
	var line bytes.Buffer
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&line), zap.DebugLevel))
	log.Info("a", zap.Any("any", Secret(open)), zap.Reflect("reflect", Secret(open)), zap.Stringer("stringer", Secret(open)),
		zap.Any("attempt", Attempt{Secret: Secret(open)}))
	if !strings.Contains(line.String(), `"any":"***"`) || strings.Contains(line.String(), "b3Blbi") || strings.Contains(line.String(), open) {
		t.Error("zap shows the secret")
	}
}

func TestSecretEqualAndWipe(t *testing.T) {
	secret := Secret(open)
	if !secret.Equal(Secret(open)) || secret.Equal(Secret("open sesamE")) || secret.Equal(nil) {
		t.Error("Equal is wrong")
	}
	if secret.Wipe(); !bytes.Equal(secret, make([]byte, len(open))) {
		t.Error("not wiped")
	}
}
