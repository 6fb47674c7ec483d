//! Where traces of requests go: to an OpenTelemetry collector, in a build with the feature `otel`.

#[cfg(feature = "otel")]
mod export;

#[cfg(feature = "otel")]
pub use self::export::{check, start};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// Where traces of requests go, and which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySettings {
    /// Where a collector takes OTLP over HTTP; empty for no traces.
    pub otlp_endpoint: String,
    /// What this server is called there.
    pub service_name: String,
    /// Part of the requests that are traced, of those whose client does not say; 0 to 1.
    pub sample: f64,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            service_name: "diptych".into(),
            sample: 1.0,
        }
    }
}

impl TelemetrySettings {
    /// Checks all that can be checked without a collector.
    ///
    /// # Errors
    /// When a value is out of its range, or this build has no traces.
    pub fn validate(&self) -> Result<()> {
        let Self {
            otlp_endpoint,
            service_name,
            sample,
        } = self;
        if !(0.0..=1.0).contains(sample) {
            bail!("telemetry.sample is {sample}, expected 0 to 1");
        }
        if service_name.is_empty() {
            bail!("telemetry.service_name is empty, expected a name such as \"diptych\"");
        }
        if otlp_endpoint.is_empty() {
            return Ok(());
        }
        check(otlp_endpoint)
    }
}

/// Refuses every endpoint.
#[cfg(not(feature = "otel"))]
fn check(endpoint: &str) -> Result<()> {
    bail!(
        "telemetry.otlp_endpoint is {endpoint:?}, but this binary has no OpenTelemetry: build it with \
         `--features otel`, or leave the endpoint empty"
    )
}

/// Exports nothing.
#[cfg(not(feature = "otel"))]
pub struct Exporting;

/// Exports nothing, since it is built without.
///
/// # Errors
/// When the settings ask for it.
#[cfg(not(feature = "otel"))]
pub fn start(settings: &TelemetrySettings) -> Result<Exporting> {
    settings.validate().map(|()| Exporting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut TelemetrySettings)) -> String {
        let mut settings = TelemetrySettings::default();
        assert!(settings.validate().is_ok());
        change(&mut settings);
        settings.validate().expect_err("is refused").to_string()
    }

    #[test]
    fn what_is_out_of_its_range_is_refused_with_its_name_and_value() {
        for sample in [-0.1, 1.5, f64::NAN] {
            let refused = refused(|settings| settings.sample = sample);
            assert!(refused.contains(&format!("telemetry.sample is {sample}")));
        }
        assert!(refused(|settings| settings.service_name.clear()).contains("service_name"));
    }

    #[cfg(not(feature = "otel"))]
    #[test]
    fn a_build_without_traces_refuses_an_endpoint_and_says_what_to_do() {
        let refused = refused(|settings| settings.otlp_endpoint = "http://127.0.0.1:4318".into());
        assert!(refused.contains("--features otel"), "{refused}");
    }

    #[cfg(feature = "otel")]
    #[test]
    fn an_endpoint_is_an_address_of_http_without_anything_after_its_path() {
        let with = |endpoint: &str| TelemetrySettings {
            otlp_endpoint: endpoint.into(),
            ..TelemetrySettings::default()
        };
        for fine in ["http://127.0.0.1:4318", "https://a.example/otlp/"] {
            assert!(with(fine).validate().is_ok(), "{fine}");
        }
        for wrong in [
            "127.0.0.1:4318",
            "localhost",
            "grpc://a.example:4317",
            "http://",
            "http://user:word@a.example",
            "http://a.example/?key=1",
            "http://a b",
        ] {
            let refused = with(wrong).validate().expect_err(wrong).to_string();
            assert!(refused.contains("telemetry.otlp_endpoint"), "{refused}");
        }
    }
}
