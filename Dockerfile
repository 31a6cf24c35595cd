# The image of wxidp: the one static binary, certificates to trust, and nothing
# else. Build it from the top of the repository:
#
#   docker build --build-arg VERSION="$(git describe --tags --always)" -t wxidp .
#
# docs/deployment.md says how to run it.
ARG GO_VERSION=1.26.8

# Compiled on the machine that builds, for the platform that is asked for.
FROM --platform=$BUILDPLATFORM golang:${GO_VERSION}-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY internal/oryx/go.mod internal/oryx/go.sum internal/oryx/
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=devel
# With time zones inside: TZ works although the image has no /usr/share/zoneinfo.
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -tags timetzdata \
    -ldflags "-s -w -X main.buildVersion=$VERSION" -o /out/bin/wxidp ./cmd/wxidp \
 && mkdir -p /out/etc/ssl/certs /out/etc/wxidp \
 && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
 && echo 'wxidp:x:65532:65532:wxidp:/etc/wxidp:/sbin/nologin' > /out/etc/passwd \
 && echo 'wxidp:x:65532:' > /out/etc/group \
 && chmod 0700 /out/etc/wxidp && chown 65532:65532 /out/etc/wxidp

FROM scratch
ARG VERSION=devel
LABEL org.opencontainers.image.title="wxidp" \
      org.opencontainers.image.description="OAuth 2.0 and OpenID Connect identity provider for WeChat mini-programs" \
      org.opencontainers.image.source="https://github.com/wxidp/wxidp" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/ /
# A number, because Kubernetes' runAsNonRoot cannot look a name up.
USER 65532:65532
ENV WXIDP_CONFIG=/etc/wxidp/config.yaml
# config.yaml and data/, as `wxidp init --dir /etc/wxidp` writes them. The rest of
# the file system may be read-only.
VOLUME /etc/wxidp
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["/bin/wxidp", "health"]
ENTRYPOINT ["/bin/wxidp"]
CMD ["serve"]
