//! Tables as Parquet files. The only place that knows polars.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use polars::prelude::{
    BooleanChunked, DataFrame, DataType, Float64Chunked, Int64Chunked, IntoColumn, IntoSeries,
    KeyValueMetadata, ListBuilderTrait, ListChunked, ListPrimitiveChunkedBuilder, NewChunkedArray,
    ParquetReader, ParquetWriter, PolarsResult, SerReader, Series, StringChunked, UInt64Chunked,
    UInt64Type,
};

use crate::column::Column;
use crate::error::TableError;
use crate::table::Table;

/// Writes a table as a Parquet file.
///
/// The file is written beside its place, brought to disk, and only then renamed, so that
/// under its name there is never half a table, not even after a power failure. What was there
/// before is replaced. A file `NAME.partial` may stay behind if the process is killed.
///
/// # Errors
///
/// [`TableError::Io`] with the path; [`TableError::Encode`] if polars refuses the table.
pub fn write_parquet(table: &Table, path: &Path) -> Result<(), TableError> {
    write_parquet_with(table, &[], path)
}

/// As [`write_parquet`], with remarks as names and values in the file's own metadata, which
/// [`read_parquet`] passes over.
///
/// # Errors
///
/// As [`write_parquet`].
pub fn write_parquet_with(
    table: &Table,
    remarks: &[(&str, &str)],
    path: &Path,
) -> Result<(), TableError> {
    let frame = frame(table).map_err(|error| TableError::Encode {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let mut aside = path.as_os_str().to_owned();
    aside.push(".partial");
    let aside = PathBuf::from(aside);
    let written = write_aside(frame, remarks, &aside)
        .and_then(|()| std::fs::rename(&aside, path).map_err(io_error("rename into place", path)))
        .and_then(|()| sync_folder(path));
    if written.is_err() {
        // The first error is the one to tell; the left-over is only unsightly.
        let _ = std::fs::remove_file(&aside);
    }
    written
}

/// Reads Parquet files, in the order given, as one table. Without files the table is empty.
///
/// # Errors
///
/// [`TableError::Io`] if a file cannot be opened, [`TableError::Corrupt`] if it is no Parquet
/// file or a damaged one, [`TableError::UnknownType`] if a column is of a type that tables
/// have no kind for, [`TableError::Part`] if its columns are not those of the first. Each
/// names the file.
pub fn read_parquet(paths: &[PathBuf]) -> Result<Table, TableError> {
    let mut table = Table::default();
    for path in paths {
        let part = read_one(path)?;
        table.append(part).map_err(|source| TableError::Part {
            path: path.clone(),
            source: Box::new(source),
        })?;
    }
    Ok(table)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TableError {
    let path = path.to_owned();
    move |source| TableError::Io {
        action,
        path,
        source,
    }
}

fn write_aside(
    mut frame: DataFrame,
    remarks: &[(&str, &str)],
    path: &Path,
) -> Result<(), TableError> {
    let file = File::create(path).map_err(io_error("create", path))?;
    let mut buffer = BufWriter::new(file);
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let remarks: Vec<(String, String)> = remarks.iter().map(owned).collect();
    let remarks = (!remarks.is_empty()).then(|| KeyValueMetadata::from_static(remarks));
    ParquetWriter::new(&mut buffer)
        .with_key_value_metadata(remarks)
        .finish(&mut frame)
        .map_err(|error| TableError::Encode {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    buffer.flush().map_err(io_error("write", path))?;
    buffer.get_ref().sync_all().map_err(io_error("sync", path))
}

/// Makes the renaming itself last.
fn sync_folder(path: &Path) -> Result<(), TableError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let sync = || File::open(folder)?.sync_all();
    sync().map_err(io_error("sync", folder))
}

fn frame(table: &Table) -> PolarsResult<DataFrame> {
    let columns = table
        .columns()
        .map(|(name, column)| series(name, column).into_column());
    DataFrame::new(table.n_rows(), columns.collect())
}

fn series(name: &str, column: &Column) -> Series {
    let name = name.into();
    match column {
        Column::U64(values) => UInt64Chunked::from_slice_options(name, values).into_series(),
        Column::I64(values) => Int64Chunked::from_slice_options(name, values).into_series(),
        Column::F64(values) => Float64Chunked::from_slice_options(name, values).into_series(),
        Column::Text(values) => StringChunked::from_slice_options(name, values).into_series(),
        Column::Bool(values) => BooleanChunked::from_slice_options(name, values).into_series(),
        Column::ListU64(lists) => {
            let n_values = lists.iter().map(Vec::len).sum();
            let mut builder = ListPrimitiveChunkedBuilder::<UInt64Type>::new(
                name,
                lists.len(),
                n_values,
                DataType::UInt64,
            );
            for list in lists {
                builder.append_slice(list);
            }
            builder.finish().into_series()
        }
    }
}

fn read_one(path: &Path) -> Result<Table, TableError> {
    let corrupt = |reason: String| TableError::Corrupt {
        path: path.to_owned(),
        reason,
    };
    let file = File::open(path).map_err(io_error("open", path))?;
    let frame = guarded(|| ParquetReader::new(file).finish()).map_err(corrupt)?;
    let mut table = Table::default();
    for column in frame.columns() {
        let series = column.as_materialized_series();
        let column = values(series, path)?;
        // Columns that do not fit together are damage too.
        table
            .push(series.name().as_str(), column)
            .map_err(|error| corrupt(error.to_string()))?;
    }
    Ok(table)
}

/// Runs the decoder, and takes a panic in it for the damage in the file that caused it: the
/// decoder does not check every offset that it reads.
fn guarded(read: impl FnOnce() -> PolarsResult<DataFrame>) -> Result<DataFrame, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)) {
        Ok(Ok(frame)) => Ok(frame),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the decoder failed on its content".to_owned()),
    }
}

fn values(series: &Series, path: &Path) -> Result<Column, TableError> {
    let corrupt = |error: polars::prelude::PolarsError| TableError::Corrupt {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let unknown = || TableError::UnknownType {
        path: path.to_owned(),
        column: series.name().to_string(),
        found: series.dtype().to_string(),
    };
    let read = || -> PolarsResult<Option<Column>> {
        Ok(Some(match series.dtype() {
            DataType::UInt32 | DataType::UInt64 => {
                Column::U64(series.cast(&DataType::UInt64)?.u64()?.iter().collect())
            }
            DataType::Int32 | DataType::Int64 => {
                Column::I64(series.cast(&DataType::Int64)?.i64()?.iter().collect())
            }
            DataType::Float32 | DataType::Float64 => {
                Column::F64(series.cast(&DataType::Float64)?.f64()?.iter().collect())
            }
            DataType::String => Column::Text(
                series
                    .str()?
                    .iter()
                    .map(|text| text.map(str::to_owned))
                    .collect(),
            ),
            DataType::Boolean => Column::Bool(series.bool()?.iter().collect()),
            DataType::List(inner) if **inner == DataType::UInt64 => {
                Column::ListU64(lists(series.list()?)?)
            }
            _ => return Ok(None),
        }))
    };
    read().map_err(corrupt)?.ok_or_else(unknown)
}

/// The lists of a column; a missing list, which tables do not have, reads as an empty one.
fn lists(column: &ListChunked) -> PolarsResult<Vec<Vec<u64>>> {
    let list = |series: Option<Series>| match series {
        None => Ok(Vec::new()),
        Some(series) => Ok(series.u64()?.iter().flatten().collect()),
    };
    (0..column.len())
        .map(|row| list(column.get_as_series(row)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Table {
        Table::new([
            ("u", Column::U64(vec![Some(u64::MAX), None, Some(0)])),
            ("i", Column::I64(vec![Some(i64::MIN), Some(1), None])),
            (
                "f",
                Column::F64(vec![Some(f64::INFINITY), None, Some(-0.5)]),
            ),
            (
                "t",
                Column::Text(vec![
                    None,
                    Some("τ, \"x\"\n".to_owned()),
                    Some(String::new()),
                ]),
            ),
            ("b", Column::Bool(vec![Some(true), Some(false), None])),
            (
                "l",
                Column::ListU64(vec![vec![1, u64::MAX], vec![], vec![3]]),
            ),
        ])
        .unwrap()
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn every_kind_survives_with_its_missing_values() {
        let folder = folder();
        let path = folder.path().join("a.parquet");
        write_parquet(&every_kind(), &path).unwrap();
        assert_eq!(
            read_parquet(std::slice::from_ref(&path)).unwrap(),
            every_kind()
        );
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "something was left beside the file");
    }

    #[test]
    fn remarks_stand_in_the_file_s_metadata_and_take_nothing_from_the_table() {
        let folder = folder();
        let path = folder.path().join("a.parquet");
        write_parquet_with(&every_kind(), &[("origin", "a trial")], &path).unwrap();
        let mut reader = ParquetReader::new(File::open(&path).unwrap());
        let metadata = reader.get_metadata().unwrap().key_value_metadata().clone();
        let pairs = metadata.unwrap_or_default();
        let origin = pairs.iter().find(|pair| pair.key == "origin").unwrap();
        assert_eq!(origin.value.as_deref(), Some("a trial"));
        assert_eq!(read_parquet(&[path]).unwrap(), every_kind());
    }

    #[test]
    fn nan_is_not_a_missing_value() {
        let folder = folder();
        let path = folder.path().join("a.parquet");
        let table = Table::new([("f", Column::F64(vec![Some(f64::NAN), None]))]).unwrap();
        write_parquet(&table, &path).unwrap();
        let read = read_parquet(&[path]).unwrap();
        let values = read.f64s("f").unwrap();
        assert!(values[0].unwrap().is_nan() && values[1].is_none());
    }

    #[test]
    fn tables_without_rows_or_columns_survive() {
        let folder = folder();
        let path = folder.path().join("a.parquet");
        let no_rows = every_kind().take(&[]);
        write_parquet(&no_rows, &path).unwrap();
        assert_eq!(read_parquet(std::slice::from_ref(&path)).unwrap(), no_rows);
        write_parquet(&Table::default(), &path).unwrap();
        assert_eq!(read_parquet(&[path]).unwrap(), Table::default());
        assert_eq!(read_parquet(&[]).unwrap(), Table::default());
    }

    #[test]
    fn parts_are_put_together_in_order() {
        let folder = folder();
        let paths = [
            folder.path().join("0.parquet"),
            folder.path().join("1.parquet"),
        ];
        write_parquet(&every_kind().take(&[2]), &paths[0]).unwrap();
        write_parquet(&every_kind().take(&[0, 1]), &paths[1]).unwrap();
        assert_eq!(read_parquet(&paths).unwrap(), every_kind().take(&[2, 0, 1]));
    }

    #[test]
    fn a_part_with_other_columns_is_named() {
        let folder = folder();
        let paths = [
            folder.path().join("0.parquet"),
            folder.path().join("1.parquet"),
        ];
        write_parquet(&every_kind(), &paths[0]).unwrap();
        let other = Table::new([("u", Column::text(["x"]))]).unwrap();
        write_parquet(&other, &paths[1]).unwrap();
        let error = read_parquet(&paths).unwrap_err();
        assert!(matches!(error, TableError::Part { .. }));
        assert!(error.to_string().contains("1.parquet"));
    }

    #[test]
    fn a_damaged_file_is_refused_and_named() {
        let folder = folder();
        let path = folder.path().join("a.parquet");
        write_parquet(&every_kind(), &path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 3, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = read_parquet(std::slice::from_ref(&path)).unwrap_err();
            assert!(matches!(error, TableError::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains("a.parquet"));
        }
        std::fs::write(&path, b"this is not parquet, it is text").unwrap();
        assert!(matches!(
            read_parquet(&[path]),
            Err(TableError::Corrupt { .. })
        ));
    }

    /// A damaged value can go unnoticed, because Parquet pages carry no checksum here; what
    /// matters is that damage never ends the program.
    #[test]
    fn no_damaged_byte_ends_the_program() {
        let folder = folder();
        let path = folder.path().join("a.parquet");
        write_parquet(&every_kind(), &path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut refused = 0;
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            std::fs::write(&path, &damaged).unwrap();
            match read_parquet(std::slice::from_ref(&path)) {
                Ok(_) => {}
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains("a.parquet"), "{error}");
                }
            }
        }
        assert!(refused > 0);
    }

    #[test]
    fn a_missing_file_or_folder_is_named() {
        let folder = folder();
        let path = folder.path().join("none/a.parquet");
        let error = read_parquet(std::slice::from_ref(&path))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("cannot open `") && error.contains("none/a.parquet"));
        let error = write_parquet(&every_kind(), &path).unwrap_err().to_string();
        assert!(error.starts_with("cannot create `") && error.contains("none/a.parquet"));
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = folder();
        let path = folder.path().join("a.parquet");
        write_parquet(&every_kind(), &path).unwrap();
        std::fs::create_dir(folder.path().join("a.parquet.partial")).unwrap();
        assert!(write_parquet(&every_kind().take(&[]), &path).is_err());
        assert_eq!(read_parquet(&[path]).unwrap(), every_kind());
    }
}
