package auth

import "slices"

// A Revocation says what has been taken away, so that the sessions which live under it end
// at once.
type Revocation struct {
	Account     string
	All         bool     // everything: the account was removed
	MainLogins  bool     // whatever the account's own password let in
	AllGrants   bool     // whatever lives under a grant, also one that had to make room for newer ones
	Grants      []string // IDs
	AppPassword string   // ID
}

// Ends says whether a session of the account that the verdict let in has to end.
func (r Revocation) Ends(account string, v Verdict) bool {
	if account != r.Account {
		return false
	}
	return r.All || r.MainLogins && v.AppPassword == "" ||
		r.AllGrants && len(v.Grants) > 0 ||
		r.AppPassword != "" && v.AppPassword == r.AppPassword ||
		slices.ContainsFunc(v.Grants, func(id string) bool { return slices.Contains(r.Grants, id) })
}

func (r Revocation) none() bool {
	return !r.All && !r.MainLogins && !r.AllGrants && len(r.Grants) == 0 && r.AppPassword == ""
}
