//! What a hostile network, a careless proxy or another user of the host can do, and cannot.

mod crowds;
mod http2;
mod passwords;
mod requests;
mod withheld;
