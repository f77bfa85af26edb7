//! The secret that an agent must know to come in over TCP.

use std::fmt;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq;
use thiserror::Error;

/// Longest token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 256;

/// A file that holds a token. It is read anew for each connection, so that a token can be changed without a restart.
#[derive(Clone)]
pub struct Token(PathBuf);

/// The file holds no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("token file {}: {error}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// What is in it is no token.
    #[error("token file {}: a token has 1 to {MAX_TOKEN_BYTES} bytes", .file.display())]
    Length {
        /// The file.
        file: PathBuf,
    },
}

// === impl Token ===

impl Token {
    /// The token in this file; white space around it does not count.
    ///
    /// # Errors
    /// [`TokenError`] if there is none now.
    pub fn in_file(path: &Path) -> Result<Self, TokenError> {
        let token = Self(path.into());
        token.read().map(|_| token)
    }

    /// Is this the token? Takes the same time whether much or little of it is right.
    ///
    /// # Errors
    /// [`TokenError`] if there is none any more.
    pub(super) fn is(&self, said: Option<&[u8]>) -> Result<bool, TokenError> {
        let token = self.read()?;
        Ok(said.is_some_and(|said| said.ct_eq(&token).into()))
    }

    fn read(&self) -> Result<Vec<u8>, TokenError> {
        let file = || self.0.clone();
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(&self.0).and_then(|file| {
            // One byte more than a token and the line end after it may have.
            std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_TOKEN_BYTES as u64 + 64), &mut bytes)
        });
        opened.map_err(|error| TokenError::Read { file: file(), error })?;
        let token = bytes.trim_ascii();
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Length { file: file() });
        }
        Ok(token.to_vec())
    }
}

impl fmt::Debug for Token {
    /// The place, never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Token").field(&self.0).finish()
    }
}
