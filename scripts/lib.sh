# shellcheck shell=bash
# What the scripts share: where things lie, and which Rust is used. Sourced, never run.
#
# Two ways to have the compiler, and linnet_rust_way says which one this machine has:
#   rustup   the toolchain of rust-toolchain.toml with its two aarch64 targets installed;
#   debian   Debian's rustc-web of the same version and its library sources, from which cargo
#            builds core (and std for the user programs) for the targets. RUSTC_BOOTSTRAP is
#            set for -Zbuild-std alone: Linnet uses stable features only.

linnet_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
linnet_cache=${LINNET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/linnet}
linnet_target=${CARGO_TARGET_DIR:-$linnet_root/target}
linnet_out=$linnet_target/linnet
linnet_channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$linnet_root/rust-toolchain.toml")
linnet_kernel_target=aarch64-unknown-none-softfloat
linnet_user_target=aarch64-unknown-linux-gnu

linnet_die() {
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# Prints the comment block at the top of the calling script: its --help.
linnet_help() {
	sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$0"
}

# Prints the directory of the artifacts of a profile: linnet_profile_dir release|debug.
linnet_profile_dir() {
	case $1 in
	release) echo "$linnet_out" ;;
	debug) echo "$linnet_out/debug" ;;
	*) linnet_die "no profile '$1'" ;;
	esac
}

# Succeeds when rustup has the pinned toolchain with both targets. Downloads nothing.
linnet_have_rustup() {
	command -v rustup >/dev/null || return 1
	local sysroot
	sysroot=$(RUSTUP_AUTO_INSTALL=0 RUSTUP_TOOLCHAIN=$linnet_channel rustc --print sysroot 2>/dev/null) || return 1
	[ -d "$sysroot/lib/rustlib/$linnet_kernel_target/lib" ] && [ -d "$sysroot/lib/rustlib/$linnet_user_target/lib" ]
}

# Succeeds when /usr/bin has a compiler at least as new as the pinned one, with library sources.
linnet_have_debian_rust() {
	local have
	have=$(/usr/bin/rustc --version 2>/dev/null | awk '{print $2}') || return 1
	[ -n "$have" ] && [ "$(printf '%s\n' "$linnet_channel" "$have" | sort -V | head -1)" = "$linnet_channel" ] || return 1
	[ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/core" ] || return 1
	[ -x /usr/bin/cargo ] && [ -x /usr/bin/cargo-clippy ] && command -v ld.lld >/dev/null
}

linnet_rust_way() {
	if linnet_have_rustup; then
		echo rustup
	elif linnet_have_debian_rust; then
		echo debian
	else
		echo none
	fi
}

# Sets the environment for cargo, and the two argument lists: linnet_kernel_args, linnet_user_args.
# LINNET_STATIC_CORE=1 (debian only) builds the core library position-dependent, as rustup's is.
linnet_rust_env() {
	# Flags come from .cargo/config.toml; a caller's RUSTFLAGS would replace them.
	unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS
	export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
	linnet_kernel_args=(--target "$linnet_kernel_target")
	linnet_user_args=(--target "$linnet_user_target")
	case $(linnet_rust_way) in
	rustup)
		export RUSTUP_TOOLCHAIN=$linnet_channel
		;;
	debian)
		export RUSTUP_TOOLCHAIN=/usr
		linnet_kernel_args+=("-Zbuild-std=core,compiler_builtins")
		linnet_user_args+=("-Zbuild-std=std,panic_abort")
		if [ "${LINNET_STATIC_CORE:-0}" = 1 ]; then
			export RUSTC_WRAPPER=$linnet_root/scripts/rustc-static-core
		fi
		;;
	*)
		linnet_die "no Rust $linnet_channel for aarch64 here: run scripts/setup"
		;;
	esac
}

# cargo, with the unlocked -Zbuild-std where the chosen way needs it. Only builds for aarch64 go
# through here: tests on the host and clippy run plain cargo.
linnet_cargo() {
	if [ "$RUSTUP_TOOLCHAIN" = /usr ]; then
		RUSTC_BOOTSTRAP=1 cargo "$@"
	else
		cargo "$@"
	fi
}

# Version of QEMU as "major", 0 without one.
linnet_qemu_major() {
	qemu-system-aarch64 --version 2>/dev/null | sed -n '1s/.*version \([0-9]*\).*/\1/p' | grep . || echo 0
}
