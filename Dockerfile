# imapwarden in a container: one static binary, no shell, not root.
#
#   docker build -t imapwarden .
#   docker run -d --name imapwarden -p 993:993 -p 143:143 --stop-timeout 60 \
#     -v /etc/imapwarden:/etc/imapwarden:ro -v imapwarden:/var/lib/imapwarden imapwarden
#   docker exec -it imapwarden /imapwarden account enroll alice@example.org
#
# In imapwarden.toml: the upstream's address is not 127.0.0.1 here, which is the
# container itself; and set metrics.address to ":9993" for a Prometheus outside, without
# publishing that port to strangers. Certificate keys must be readable by user 65532.

FROM golang:1.26 AS build
WORKDIR /src
# The modules in a layer of their own: they change less often than the code.
COPY go.mod go.sum ./
RUN go mod download
# Without what .dockerignore names.
COPY . .
# Without cgo the binary needs no C library, and DNS is Go's own. -trimpath: the same
# source gives the same binary, wherever it was built.
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/imapwarden ./cmd/imapwarden
# What the process writes: records and key, the admin socket, and the demo's files.
RUN mkdir -p -m 0700 /out/own/var/lib/imapwarden /out/own/run/imapwarden /out/own/tmp

FROM scratch
# For upstreams with a certificate of a public CA. No time zones: logs are in UTC.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
# Root's, so that the process can't replace itself.
COPY --from=build /out/imapwarden /imapwarden
COPY --from=build --chown=65532:65532 /out/own/ /
# By number: there is no /etc/passwd, and Kubernetes' runAsNonRoot wants one.
USER 65532:65532
# The records and, by default, the key that seals them. Without a named volume both go
# with the container. A copy of the two together opens every TOTP secret: keep the
# key's backup apart, or mount it from elsewhere and set store.key_file.
VOLUME /var/lib/imapwarden
# Not root, and yet below 1024: Docker sets net.ipv4.ip_unprivileged_port_start to 0 in a
# container's own network. With --network=host, or where a runtime doesn't, listen on
# 1993 and 1143 and map the ports: NET_BIND_SERVICE, added to a container, doesn't reach
# a process that isn't root.
EXPOSE 993 143
# No shell means the exec form here, and no HEALTHCHECK: ask /readyz on metrics.address.
ENTRYPOINT ["/imapwarden"]
CMD ["serve", "--config", "/etc/imapwarden/imapwarden.toml"]
