# A Node application with haft inside. Copy this file into the application's folder as Dockerfile; server.js and the port are
# yours to change.
#
#     docker build -t app .
#     docker run --rm -p 3000:3000 --stop-timeout 40 app
ARG HAFT=haft:0.1.0
ARG NODE=docker.io/library/node:22-slim

FROM ${HAFT} AS haft

FROM ${NODE}
COPY --from=haft /usr/bin/haft /usr/bin/haft
COPY --from=haft --chown=65532:65532 /run/haft /run/haft
WORKDIR /app
COPY . .
RUN [ ! -f package.json ] || npm ci --omit=dev --no-audit --no-fund
ENV NODE_ENV=production
USER 65532:65532
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/usr/bin/haft", "health"]
# haft is process 1: it takes the ends of orphans, so no init is needed.
ENTRYPOINT ["/usr/bin/haft"]
CMD ["--", "node", "server.js"]
