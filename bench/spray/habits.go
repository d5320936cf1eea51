package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Habits are what honest people and their mail programs do, as numbers. Shares are
// of 1.
type Habits struct {
	People int

	// Who they are and where.
	OfficeShare   float64 // work at an office of up to 500 people behind one address
	Carriers      int     // mobile operators
	CarrierBlocks int     // /24s that an operator's gateways have
	CarrierHosts  int     // gateways in each of them
	HomesPerBlock int     // our people's homes in one /24 of a provider
	IPv6Homes     float64 // homes with IPv6, a /56 each
	HomeMoves     float64 // homes whose provider gives a new address every night
	Travellers    float64 // in a hotel on the measured day
	Hotels        int

	// What they sign in with.
	Phones            float64 // accounts with a phone
	Webmail           float64 // accounts that use a webmail
	WebmailSilent     float64 // of these, those whose webmail doesn't say where its users are: a trusted network
	AppPasswordPhones float64 // phones that have an app password; the others live on grants of their TLS client
	AppPasswordDesks  float64 // desktops that have one; the others bring codes
	Enrolled          float64 // accounts with a second factor, in mode "optional"
	WeakPasswords     float64 // accounts with one of the 1,000 commonest passwords

	// What they do.
	Connections   int           // that a desktop's mail program opens at its start
	DeskReconnect time.Duration // between new connections of a desktop at work, on average
	RoamReconnect time.Duration // between new connections of a phone, on average
	PageViews     int           // logins of one visit to a webmail, on average
	Mistyped      float64       // typed secrets that are wrong
	Forgotten     float64       // people who first forget the code
	Changes       float64       // accounts that change their password on the measured day
	UpdateLater   time.Duration // until the owner has updated a device, on average
	StalePhones   float64       // accounts with a phone that repeats an old secret the whole day
	StaleRetry    time.Duration // between its tries
	History       int           // days before the measured one
}

func defaultHabits() Habits {
	return Habits{
		People:      20_000,
		OfficeShare: 0.6, Carriers: 4, CarrierBlocks: 16, CarrierHosts: 32, HomesPerBlock: 5, IPv6Homes: 0.3, HomeMoves: 0.1, Travellers: 0.015, Hotels: 100,
		Phones: 0.8, Webmail: 0.3, WebmailSilent: 0.3, AppPasswordPhones: 0.6, AppPasswordDesks: 0.5, Enrolled: 0.6, WeakPasswords: 0.01,
		Connections: 5, DeskReconnect: 40 * time.Minute, RoamReconnect: time.Hour, PageViews: 25,
		Mistyped: 0.1, Forgotten: 0.2, Changes: 0.005, UpdateLater: 2 * time.Hour, StalePhones: 0.01, StaleRetry: 15 * time.Minute,
		History: 7,
	}
}

// A parameter is one number that a run may be given, and where its default comes from.
type parameter struct {
	name   string
	value  any // a pointer to an int, a float64 or a time.Duration
	source string
}

const assumed = "assumed"

func (h *Habits) parameters() []parameter {
	return []parameter{
		{"accounts", &h.People, "the issue"},
		{"office-share", &h.OfficeShare, assumed},
		{"carriers", &h.Carriers, assumed},
		{"carrier-blocks", &h.CarrierBlocks, assumed},
		{"carrier-hosts", &h.CarrierHosts, "operators share each address among hundreds of people: Cloudflare, One IP address, many users (2025)"},
		{"homes-per-block", &h.HomesPerBlock, assumed + ": a town's provider"},
		{"ipv6-homes", &h.IPv6Homes, assumed},
		{"home-moves", &h.HomeMoves, assumed},
		{"travellers", &h.Travellers, assumed},
		{"hotels", &h.Hotels, assumed},
		{"phones", &h.Phones, assumed},
		{"webmail", &h.Webmail, assumed},
		{"webmail-silent", &h.WebmailSilent, assumed},
		{"app-password-phones", &h.AppPasswordPhones, assumed},
		{"app-password-desks", &h.AppPasswordDesks, assumed},
		{"enrolled", &h.Enrolled, assumed},
		{"weak-passwords", &h.WeakPasswords, "75 % of organizations had some among the 1,000 commonest: NCSC, Spray you, spray me (2018); the share is assumed"},
		{"connections", &h.Connections, "Thunderbird's default"},
		{"desk-reconnect", &h.DeskReconnect, assumed},
		{"roam-reconnect", &h.RoamReconnect, assumed},
		{"page-views", &h.PageViews, assumed + ": a webmail signs in for each page"},
		{"mistyped", &h.Mistyped, "assumed; typing errors turned away 3 % of Dropbox's people within a day: Chatterjee et al., Password typos (2016)"},
		{"forgotten", &h.Forgotten, assumed},
		{"changes", &h.Changes, assumed},
		{"update-later", &h.UpdateLater, assumed},
		{"stale-phones", &h.StalePhones, assumed},
		{"stale-retry", &h.StaleRetry, "the issue: a phone's usual fetch interval"},
		{"history", &h.History, "the issue: a week"},
	}
}

// set gives the parameter of that name a value as it is written on the command line.
func set(parameters []parameter, name, value string) error {
	for _, p := range parameters {
		if p.name != name {
			continue
		}
		var err error
		switch v := p.value.(type) {
		case *int:
			*v, err = strconv.Atoi(value)
		case *float64:
			*v, err = strconv.ParseFloat(value, 64)
		case *time.Duration:
			*v, err = time.ParseDuration(value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	return fmt.Errorf("there is no parameter %q; -parameters lists them", name)
}

// text is the value as set reads it.
func (p parameter) text() string {
	switch v := p.value.(type) {
	case *int:
		return strconv.Itoa(*v)
	case *float64:
		return strconv.FormatFloat(*v, 'g', -1, 64)
	case *time.Duration:
		return v.String()
	}
	return ""
}

// MarshalJSON writes name, value and source.
func (p parameter) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"name": p.name, "value": p.text(), "source": p.source})
}
