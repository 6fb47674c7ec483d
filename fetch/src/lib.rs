//! Files by address, asked for by strangers: a server that fetches what others name can be made to
//! ask machines that only it can reach.
//!
//! So nothing is fetched but from hosts that the operator has named, and from addresses that are
//! public. A name is resolved once; all its addresses are looked at, and the connection goes to
//! those that were looked at, so that a name which leads elsewhere a moment later leads nowhere. A
//! redirect is a new address in every respect. Bytes and time are bounded.
//!
//! It is **not** a cache, and knows nothing of what it fetches: whether that is a picture is for a
//! decoder to say.
//!
//! ```no_run
//! use fetch::{Fetcher, Rules};
//!
//! # fn main() -> Result<(), fetch::FetchError> {
//! let allow = vec!["images.example.com".into(), "*.example.org".into()];
//! let fetcher = Fetcher::new(Rules { allow, ..Rules::default() })?;
//! let bytes = fetcher.get("https://images.example.com/cat.jpg")?;
//! # Ok(())
//! # }
//! ```
//!
//! In reading order: `rules` says which addresses may be asked at all, `public` which are public,
//! `resolve` turns names into addresses, `fetcher` asks.

mod error;
mod fetcher;
mod public;
mod resolve;
mod rules;

pub use error::FetchError;
pub use fetcher::Fetcher;
pub use ipnet::IpNet;
pub use resolve::{Resolve, SystemResolver};
pub use rules::Rules;
