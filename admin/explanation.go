package admin

import (
	"encoding/json"
	"net/netip"

	"imapwarden/auth"
	"imapwarden/policy"
)

// An Explanation says what would come of logins to an account from somewhere, and why.
type Explanation struct {
	Account string
	Source  netip.Addr
	Rule    policy.Ruling
	Unread  []string            // settings whose files the rule needs and nobody could read: why it denies
	Limits  *policy.Explanation // nil: no server runs, so its counts can't be known
	Bans    []Ban               // in force for the source, where Limits is nil
	Login   auth.Explanation
}

// explanation is one as JSON; its names are part of the interface.
type explanation struct {
	Account string              `json:"account"`
	Source  netip.Addr          `json:"source"`
	Rule    ruling              `json:"rule"`
	Unread  []string            `json:"unread,omitempty"`
	Limits  *policy.Explanation `json:"limits"`
	Bans    []Ban               `json:"bans,omitempty"`
	Login   auth.Explanation    `json:"login"`
}

type ruling struct {
	Rule         string `json:"rule"`
	Denied       bool   `json:"denied"`
	SecondFactor string `json:"second_factor"`
	ReadOnly     bool   `json:"read_only"`
	MaxSessions  int    `json:"max_sessions"`
}

// MarshalJSON writes an object with the members account, source, rule, unread, limits, bans and login.
func (e Explanation) MarshalJSON() ([]byte, error) {
	return json.Marshal(explanation{e.Account, e.Source, ruling(e.Rule), e.Unread, e.Limits, e.Bans, e.Login})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (e *Explanation) UnmarshalJSON(data []byte) error {
	var read explanation
	if err := json.Unmarshal(data, &read); err != nil {
		return err
	}
	*e = Explanation{read.Account, read.Source, policy.Ruling(read.Rule), read.Unread, read.Limits, read.Bans, read.Login}
	return nil
}
