//! What can be wrong with a table or its file.

use std::path::PathBuf;

use crate::column::Kind;

/// Why a table could not be built, asked or stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The columns are not equally long.
    #[error("column `{column}` has {found} rows, expected {expected} like the first column")]
    Ragged {
        /// The column that differs.
        column: String,
        /// Its length.
        found: usize,
        /// Length of the first column.
        expected: usize,
    },
    /// Two columns have the same name.
    #[error("column `{column}` is given twice")]
    Duplicate {
        /// The name.
        column: String,
    },
    /// There is no such column.
    #[error("found no column `{column}`; there are {}", listed(.present))]
    NoColumn {
        /// The name asked for.
        column: String,
        /// The names there are.
        present: Vec<String>,
    },
    /// The column holds something else.
    #[error("column `{column}` holds {found}, expected {expected}")]
    Kind {
        /// The column.
        column: String,
        /// What it holds.
        found: Kind,
        /// What was needed.
        expected: &'static str,
    },
    /// Tables that were to be joined end to end have different columns.
    #[error("columns differ: found {}, expected {}", listed(.found), listed(.expected))]
    Differ {
        /// Columns of the table to be added, with their kinds.
        found: Vec<String>,
        /// Columns of the table it was to be added to, with their kinds.
        expected: Vec<String>,
    },
    /// A file could not be opened, written or renamed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not the Parquet file it should be.
    #[error("cannot read `{}` as parquet: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A table could not be encoded.
    #[error("cannot encode a table for `{}`: {reason}", path.display())]
    Encode {
        /// The file it was meant for.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A file holds a column of a type that tables have no kind for.
    #[error("column `{column}` of `{}` has the type {found}, expected an integer, a float, text, a boolean or a list of unsigned integers", path.display())]
    UnknownType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type as the file names it.
        found: String,
    },
    /// One of several files that make up a table is unlike the first.
    #[error("`{}` does not continue the files before it: {source}", path.display())]
    Part {
        /// The file that differs.
        path: PathBuf,
        /// How.
        source: Box<TableError>,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
