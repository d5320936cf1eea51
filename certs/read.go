package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxFile is more than any chain needs.
const maxFile = 1 << 20

// text is what a file holds, or why that can't be known. A set is made of two for
// each pair: the certificate, then the key.
type text struct {
	file string
	data []byte
	mode fs.FileMode
	err  error
}

func readAll(pairs []Pair) []text {
	texts := make([]text, 0, 2*len(pairs))
	for _, p := range pairs {
		texts = append(texts, read(p.Cert), read(p.Key))
	}
	return texts
}

func read(file string) text {
	t := text{file: file}
	info, err := os.Stat(file) // before opening, which a pipe would block
	if err != nil {
		t.err = explain(err)
		return t
	}
	t.mode = info.Mode()
	if !t.mode.IsRegular() {
		t.err = errors.New("it is not a regular file")
		return t
	}
	r, err := os.Open(file)
	if err != nil {
		t.err = explain(err)
		return t
	}
	defer r.Close()
	if t.data, err = io.ReadAll(io.LimitReader(r, maxFile+1)); err != nil {
		t.err = explain(err)
	} else if len(t.data) > maxFile {
		t.data, t.err = nil, errors.New("it is larger than 1 MiB, which no certificate or key is")
	}
	return t
}

// explain drops the file's name, which the caller says, and adds what to do.
func explain(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; check the path in the configuration", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; let the user that imapwarden runs as read it", err)
	}
	return err
}

// parse makes a certificate of two texts. Its errors name the file that is wrong and
// say nothing of a key's content.
func parse(cert, key text) (*tls.Certificate, error) {
	if err := errors.Join(readable("certificate", cert), readable("key", key)); err != nil {
		return nil, err
	}
	blocks, err := decode(cert)
	if err != nil {
		return nil, fmt.Errorf("certs: certificate %q: %w", cert.file, err)
	}
	certificates := 0
	for _, b := range blocks {
		if b.Type != "CERTIFICATE" {
			continue
		}
		certificates++
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			return nil, fmt.Errorf("certs: certificate %q: number %d in it is damaged: %w", cert.file, certificates, err)
		}
	}
	if certificates == 0 {
		return nil, fmt.Errorf("certs: certificate %q: there is no certificate in it; it must be a PEM file (-----BEGIN CERTIFICATE-----)", cert.file)
	}
	if blocks, err = decode(key); err != nil {
		return nil, fmt.Errorf("certs: key %q: %w", key.file, err)
	}
	if err := checkKey(blocks); err != nil {
		return nil, fmt.Errorf("certs: key %q: %w", key.file, err)
	}
	c, err := tls.X509KeyPair(cert.data, key.data)
	if err == nil {
		return &c, nil
	}
	if strings.Contains(err.Error(), "does not match") {
		return nil, fmt.Errorf("certs: key %q doesn't belong to the first certificate in %q; "+
			"name the right pair, and put the server's own certificate before those of its issuers", key.file, cert.file)
	}
	return nil, fmt.Errorf("certs: certificate %q with key %q: %w", cert.file, key.file, err)
}

func readable(what string, t text) error {
	switch {
	case t.file == "":
		return fmt.Errorf("certs: a pair names no %s file; each needs both", what)
	case t.err != nil:
		return fmt.Errorf("certs: reading %s %q: %w", what, t.file, t.err)
	}
	return nil
}

// decode returns all PEM blocks. encoding/pem skips those it can't read, and a chain
// that is half written would be served without its end.
func decode(t text) ([]*pem.Block, error) {
	var blocks []*pem.Block
	for rest := t.data; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		blocks = append(blocks, b)
	}
	if begun := bytes.Count(t.data, []byte("-----BEGIN ")); begun != len(blocks) {
		return nil, fmt.Errorf("block %d of %d in it is cut off or damaged; write the file anew", len(blocks)+1, begun)
	}
	return blocks, nil
}

func checkKey(blocks []*pem.Block) error {
	for _, b := range blocks {
		if b.Type == "ENCRYPTED PRIVATE KEY" || b.Headers["DEK-Info"] != "" {
			return errors.New("it is encrypted with a passphrase; write it without one: openssl pkey -in OLD -out NEW")
		}
		if b.Type == "PRIVATE KEY" || strings.HasSuffix(b.Type, " PRIVATE KEY") {
			return nil
		}
	}
	return errors.New("there is no private key in it; it must be a PEM file (-----BEGIN PRIVATE KEY-----)")
}
