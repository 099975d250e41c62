//! memwatch's BPF programs: one module per kernel subject. What they write is described in
//! `lib.rs`; who reads it is the agent's `bpf` module.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(
    internal_features,
    reason = "core offers BPF's atomic add in no other way"
)]

mod exit;
mod fault;
mod guard;
mod hang;
mod kfuncs;
mod maps;
mod memstall;
mod oom;
mod reclaim;
mod target;

/// Reading kernel memory is for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The verifier proves that no program can get here.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
