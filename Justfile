# What one does with this repository. Run it as `./just`, which installs what is missing.

target := env("CARGO_TARGET_DIR", "target")

_list:
    @just --list --unsorted

# every test: style, house rules, crates, simulation, attacks, the programs together
test: lint
    cargo build --workspace --all-targets --locked
    cargo test --workspace --locked --no-fail-fast

# formatting and lints, without running anything
lint:
    #!/bin/sh
    set -eu
    if cargo fmt --version >/dev/null 2>&1; then
        cargo fmt --all --check
    else
        echo "not checked: formatting (rustfmt is not installed; rustup component add rustfmt)"
    fi
    if cargo clippy --version >/dev/null 2>&1; then
        cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
        cargo clippy --workspace --test slow --locked --quiet -- -D warnings
    else
        echo "not checked: lints (clippy is not installed; rustup component add clippy)"
    fi

# the story from dealing keys to restoring after home is lost, on PATH (default: the Rust toolchain)
[no-exit-message]
[positional-arguments]
demo *PATH:
    @cargo build --workspace --all-targets --locked
    @"{{ target }}/debug/hoidla-demo" "$@"

# the boot image, signed and on a stick to try out, into target/image/ (--help: for a release; --twice: again elsewhere, and compares)
[no-exit-message]
[positional-arguments]
image *ARGS:
    @image/make "$@"

# an embassy whose appliance is a machine in QEMU, its console in this terminal; --new: you set it up
vm *ARGS:
    cargo build --workspace --bins --locked
    "{{ target }}/debug/hoidla-vm" --folder "{{ target }}/vm" {{ ARGS }}

# the appliance as a machine: Secure Boot, TPM, power cuts
vm-test:
    cargo build --workspace --bins --locked
    cargo test --workspace --locked --test life --test guard --test slow

# how fast: prints a table and writes target/bench.json
bench *ARGS:
    cargo build --workspace --bins --release --locked
    "{{ target }}/release/hoidla-bench" --folder "{{ target }}" {{ ARGS }}

# the simulation: SEED replays one with every event, --hours N soaks, --mutants shows which mistakes it finds
[no-exit-message]
[positional-arguments]
sim *ARGS:
    @cargo build -p hoidla-simulation --locked
    @"{{ target }}/debug/hoidla-sim" "$@"
