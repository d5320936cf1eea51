//go:build race

package policy

const shrink = 10
