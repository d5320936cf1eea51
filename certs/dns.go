package certs

import (
	"fmt"
	"strings"
	"time"

	"github.com/libdns/libdns"
)

// What the providers of DNS-01 have in common: they write the TXT records of challenges
// (RFC 8555, section 8.4), and nothing else.

const maxTXT = 255 // octets of one string (RFC 1035, section 3.3)

// A challengeRecord is the TXT record of one challenge.
type challengeRecord struct {
	name  string // with the dot at its end
	value string
	ttl   time.Duration
}

// challengeRecords refuses what isn't the record of a challenge, before anything is written:
// a value is the hash of a key in base64url, which needs no escape anywhere.
func challengeRecords(zone string, records []libdns.Record) ([]challengeRecord, error) {
	list := make([]challengeRecord, len(records))
	for i, r := range records {
		rr := r.RR()
		name := strings.TrimSuffix(libdns.AbsoluteName(rr.Name, zone), ".") + "."
		switch {
		case rr.Type != "TXT":
			return nil, fmt.Errorf("certs: a record of type %.20q for %.300q is none of a challenge", rr.Type, name)
		case rr.Data == "" || len(rr.Data) > maxTXT || strings.Trim(rr.Data, base64url) != "":
			return nil, fmt.Errorf("certs: the text of the record for %.300q is none of a challenge", name)
		}
		list[i] = challengeRecord{name: name, value: rr.Data, ttl: rr.TTL}
	}
	return list, nil
}

const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// texts returns the records as libdns wants them back.
func texts(records []libdns.Record) []libdns.Record {
	list := make([]libdns.Record, len(records))
	for i, r := range records {
		rr := r.RR()
		list[i] = libdns.TXT{Name: rr.Name, TTL: rr.TTL, Text: rr.Data}
	}
	return list
}
