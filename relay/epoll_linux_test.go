package relay

import (
	"os"
	"testing"
	"time"
)

// TestMain has deadlines looked at often.
func TestMain(m *testing.M) {
	scanEvery = 20 * time.Millisecond
	os.Exit(m.Run())
}
