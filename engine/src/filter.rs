//! Filters: conditions on declared fields of payloads.
//!
//! A collection declares [`Fields`]; every write then keeps, in the same atomic batch as the items,
//! which ordinals have which value ([`postings`]). A [`Filter`] is read from JSON ([`language`]),
//! checked against the fields ([`checked`]), and turned into one bitmap of ordinals. Each shard
//! then searches among its rows with those ordinals, in the way that costs least ([`plan`]).

pub(crate) mod checked;
mod datetime;
pub(crate) mod digests;
pub(crate) mod field;
pub(crate) mod language;
pub(crate) mod ordinals;
pub(crate) mod page;
pub(crate) mod plan;
pub(crate) mod postings;
pub(crate) mod value;
