//! The HTTP service from outside: over a real port, with towers that know nothing but hashes.

mod classify;
mod collections;
mod doors;
mod errors;
mod harness;
mod heads;
mod items;
mod jobs;
mod keys;
mod lifecycle;
mod metrics;
mod openai;
mod openapi;
mod page;
mod queue;
mod search;
mod slow;
mod snapshots;
mod tls;
mod urls;
mod writes;
