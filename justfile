# Shorthands; every line is a command that works without `just`, too.

# List them
default:
    @just --list

# Index the bundled gallery and serve it
demo *options:
    cargo run --release -- demo {{options}}

# All tests
test:
    cargo test --workspace

# Figures of the built-in model
eval *options:
    cargo run --release -- eval demo {{options}}

# Format, then show what clippy thinks
tidy:
    cargo fmt --all
    cargo clippy --workspace --all-targets

# The documentation of every crate
doc:
    cargo doc --workspace --no-deps --open

# Benches
bench *options:
    cargo bench --package benches {{options}}

# Everything that CI checks
ci:
    .ci/run
