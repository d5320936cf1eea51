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
	Limits  *policy.Explanation // nil: no server runs, so its counts can't be known
	Login   auth.Explanation
}

// explanation is one as JSON; its names are part of the interface.
type explanation struct {
	Account string              `json:"account"`
	Source  netip.Addr          `json:"source"`
	Rule    ruling              `json:"rule"`
	Limits  *policy.Explanation `json:"limits"`
	Login   auth.Explanation    `json:"login"`
}

type ruling struct {
	Rule         string `json:"rule"`
	Denied       bool   `json:"denied"`
	SecondFactor string `json:"second_factor"`
	ReadOnly     bool   `json:"read_only"`
	MaxSessions  int    `json:"max_sessions"`
}

// MarshalJSON writes an object with the members account, source, rule, limits and login.
func (e Explanation) MarshalJSON() ([]byte, error) {
	return json.Marshal(explanation{e.Account, e.Source, ruling(e.Rule), e.Limits, e.Login})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (e *Explanation) UnmarshalJSON(data []byte) error {
	var read explanation
	if err := json.Unmarshal(data, &read); err != nil {
		return err
	}
	*e = Explanation{read.Account, read.Source, policy.Ruling(read.Rule), read.Limits, read.Login}
	return nil
}
