//! Where `serve` listens, as `--bind` says it.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// An address, with its port or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindArg {
    /// The address.
    pub ip: IpAddr,
    /// The port, if it is said.
    pub port: Option<u16>,
}

impl FromStr for BindArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = text.parse() {
            return Ok(Self { ip, port: None });
        }
        let both: SocketAddr = text.parse().map_err(
            |_| "expected an IP address, as 127.0.0.1, or with its port, 127.0.0.1:7700",
        )?;
        Ok(Self {
            ip: both.ip(),
            port: Some(both.port()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_its_port_and_without() {
        let read = |text: &str| text.parse::<BindArg>().map(|bind| (bind.ip, bind.port));
        assert_eq!(read("0.0.0.0"), Ok(([0; 4].into(), None)));
        assert_eq!(read("0.0.0.0:7701"), Ok(([0; 4].into(), Some(7701))));
        assert_eq!(read("::"), Ok(([0_u16; 8].into(), None)));
        assert_eq!(read("[::]:7701"), Ok(([0_u16; 8].into(), Some(7701))));
        for wrong in ["", "localhost", ":7700", "0.0.0.0:", "0.0.0.0:77000"] {
            assert!(
                read(wrong).is_err_and(|e| e.contains("127.0.0.1:7700")),
                "{wrong}"
            );
        }
    }
}
