// SPDX-License-Identifier: MIT

//! TLS on a non-blocking stream, by rustls.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};

/// The most bytes that wait to be encrypted or sent.
const BUFFER: usize = 64 << 10;

/// A TLS stream.
#[derive(Debug)]
pub(crate) struct Tls {
    connection: Connection,
    stream: TcpStream,
}

fn wrong(error: rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

impl Tls {
    fn new(mut connection: Connection, stream: TcpStream) -> Self {
        connection.set_buffer_limit(Some(BUFFER));
        Self { connection, stream }
    }

    /// A new client's connection.
    pub(crate) fn accept(config: &Arc<ServerConfig>, stream: TcpStream) -> io::Result<Self> {
        let connection = ServerConnection::new(config.clone()).map_err(wrong)?;
        Ok(Self::new(connection.into(), stream))
    }

    /// A connection to a node whose certificate is for `name`.
    pub(crate) fn connect(
        config: &Arc<ClientConfig>,
        name: &str,
        stream: TcpStream,
    ) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned());
        let name = name.map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        let connection = ClientConnection::new(config.clone(), name).map_err(wrong)?;
        Ok(Self::new(connection.into(), stream))
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether bytes wait to be sent.
    pub(crate) fn waits(&self) -> bool {
        self.connection.wants_write()
    }

    /// Sends the waiting bytes.
    pub(crate) fn push(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut self.stream)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            if self.connection.read_tls(&mut self.stream)? == 0 {
                return Ok(0);
            }
            let processed = self.connection.process_new_packets();
            match self.push() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            processed.map_err(wrong)?;
        }
    }
}

impl Write for Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        let taken = self.connection.writer().write(bytes)?;
        match self.push() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ if taken == 0 => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn chain(certificate: &Path, key: &Path) -> Result<Chain, String> {
    let read = |path: &Path, error: pem::Error| format!("{}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| read(certificate, error))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| read(key, error))?;
    Ok((certificates, key))
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, String> {
    let read = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| read(&error))? {
        let certificate = certificate.map_err(|error| read(&error))?;
        roots.add(certificate).map_err(|error| read(&error))?;
    }
    Ok(Arc::new(roots))
}

/// The TLS settings for clients. With `client_ca`, they need a certificate issued by it.
pub(crate) fn server(
    certificate: &Path,
    key: &Path,
    client_ca: Option<&Path>,
) -> Result<Arc<ServerConfig>, String> {
    let (certificates, key) = chain(certificate, key)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(path)?, provider());
            let verifier = verifier.build().map_err(|error| error.to_string())?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(certificates, key);
    config.map(Arc::new).map_err(|error| error.to_string())
}

/// The TLS settings for nodes, whose certificates are issued by `ca`.
pub(crate) fn client(ca: &Path, own: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(ca)?);
    match own {
        None => Ok(Arc::new(builder.with_no_client_auth())),
        Some((certificate, key)) => {
            let (certificates, key) = chain(certificate, key)?;
            let config = builder.with_client_auth_cert(certificates, key);
            config.map(Arc::new).map_err(|error| error.to_string())
        }
    }
}
