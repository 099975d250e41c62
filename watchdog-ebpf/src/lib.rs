//! The wire ABI between memwatch's BPF programs and its agent.
#![no_std]
