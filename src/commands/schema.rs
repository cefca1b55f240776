//! `benchwright schema`: what plans may say, for editors.

use super::{Session, write_out};
use crate::args::Schema;
use crate::exit::{self, Failure};

/// Writes the JSON schema of plans.
pub(super) fn schema(arguments: &Schema, session: &Session) -> Result<u8, Failure> {
    let schema = engine::schema::plan(&(session.library)());
    let text = format!("{schema:#}\n");
    write_out(arguments.output.as_deref(), text.as_bytes())?;
    Ok(exit::DONE)
}
