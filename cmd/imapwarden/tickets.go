package main

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"imapwarden/auth"
)

// renewTickets gives TLS its session ticket keys, where grants depend on what is in the
// tickets: crypto/tls's own keys are gone after a restart.
func (w *warden) renewTickets(ctx context.Context) error {
	if !w.auth.Grant.ForClients() {
		return nil
	}
	keys, err := auth.TicketKeys(ctx, w.store, w.keys, time.Now())
	if err != nil {
		return fmt.Errorf("TLS session ticket keys: %w", err)
	}
	w.proxy.TLS.SetSessionTicketKeys(keys)
	return nil
}

func (w *warden) renewTicketsHourly(ctx context.Context) {
	hourly := time.NewTicker(time.Hour)
	defer hourly.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hourly.C:
		}
		if err := w.renewTickets(ctx); err != nil {
			w.log.Error("not renewed, trying again in an hour", zap.Error(err))
		}
	}
}
