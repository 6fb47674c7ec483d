//! The HTTP service from outside: over a real port, with towers that know nothing but hashes.

mod classify;
mod collections;
mod doors;
mod errors;
mod harness;
mod heads;
mod items;
mod lifecycle;
mod openai;
mod page;
mod queue;
mod search;
mod snapshots;
mod writes;
