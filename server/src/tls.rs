//! TLS: the certificate, which may be read again while the server runs.

use std::{path::Path, sync::Arc};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{ServerError, config::TlsFiles};

/// What is shown to clients.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// When they cannot be read, or do not belong together.
    pub(crate) fn new(files: TlsFiles) -> Result<Arc<Self>, ServerError> {
        let current = RwLock::new(Arc::new(read(&files)?));
        Ok(Arc::new(Self { files, current }))
    }

    /// Reads both files again. What cannot be read changes nothing.
    ///
    /// # Errors
    /// As for [`Certificate::new`].
    pub(crate) fn reload(&self) -> Result<(), ServerError> {
        *self.current.write() = Arc::new(read(&self.files)?);
        Ok(())
    }

    /// What the server speaks TLS with.
    ///
    /// # Errors
    /// When the provider knows none of the versions that are safe.
    pub(crate) fn config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth();
        Ok(config.with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read()))
    }
}

/// Reads a certificate and its key.
///
/// # Errors
/// When they cannot be read, or do not belong together.
pub(crate) fn read(files: &TlsFiles) -> Result<CertifiedKey, ServerError> {
    let unread = |file: &Path, reason: String| ServerError::Tls {
        file: file.to_owned(),
        reason,
    };
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unread(&files.certificate, error.to_string()))?;
    if certificates.is_empty() {
        let reason = "it has no certificate in the PEM form".to_owned();
        return Err(unread(&files.certificate, reason));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unread(&files.key, error.to_string()))?;
    CertifiedKey::from_der(certificates, key, &provider())
        .map_err(|error| unread(&files.key, error.to_string()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
