# What several of these scripts need. They define `die`.

# A port of the loopback that nothing uses now.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Prints the page at URL as soon as there is one. PROCESS serves it, and writes to LOG.
page() { # URL PROCESS LOG
    for _ in {1..600}; do
        ! curl -sf "$1" || return 0
        kill -0 "$2" 2>/dev/null || { cat "$3" && die "it has ended instead of serving $1"; } >&2
        sleep 0.05
    done
    { cat "$3" && die "nothing is served at $1"; } >&2
}
