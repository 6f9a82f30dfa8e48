//! Data directories of PostgreSQL: what one holds, laying one out, and the settings that make it recover.
//!
//! Layer 4 (driver): it alone knows which files of a data directory matter and in which order they must become durable.
//! What to write comes from the caller; where it comes from is the repository's business.

pub mod quote;
pub mod settings;

pub use settings::RecoverySettings;
