use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use csv::{ByteRecord, ErrorKind, Position, Reader};
use tasker_sdk::{StepContext, StepError, code};

/// The file is not CSV with a header and rows of one length.
const CSV_MALFORMED: &str = "CSV_MALFORMED";
/// A field does not hold what its column should hold.
const CSV_BAD_VALUE: &str = "CSV_BAD_VALUE";
/// The header lacks a column.
const CSV_COLUMN_MISSING: &str = "CSV_COLUMN_MISSING";
/// The file is not the one that the analyzer read.
const FILE_CHANGED: &str = "FILE_CHANGED";

/// A record longer than this is taken for a quote that was never closed: without a limit it would
/// draw the rest of the file into memory.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// How many rows are read between two looks at whether anybody still wants them.
const ROWS_PER_CANCEL_CHECK: u64 = 1_024;

/// A CSV file read row by row, with errors that name file and row. Reading blocks.
pub(crate) struct CsvFile {
    ctx: StepContext,
    /// As the context of the task names it.
    path: String,
    columns: Vec<String>,
    reader: Reader<Limited>,
    record: ByteRecord,
    /// The data row after the one in `record`, 0-based.
    next_row: u64,
    /// Whether lines end in CR LF, of which the parser leaves the LF to the next record.
    is_crlf: bool,
    /// Lines are known as long as nothing was skipped.
    knows_lines: bool,
}

impl CsvFile {
    /// Opens a file below the data roots and reads its header.
    pub(crate) fn open(ctx: &StepContext, path: &str) -> Result<Self, StepError> {
        let full = ctx.resolve_path(path)?;
        let unreadable = |what: &dyn std::fmt::Display| {
            StepError::permanent(code::FILE_NOT_READABLE, format!("{path}: {what}"))
        };
        // Opening a pipe would wait for somebody to write into it.
        if !fs::metadata(&full).map_err(|e| unreadable(&e))?.is_file() {
            return Err(unreadable(&"not a file"));
        }
        let file = File::open(&full).map_err(|e| unreadable(&e))?;
        let probe = file.try_clone().map_err(|e| unreadable(&e))?;
        let mut csv = Self {
            ctx: ctx.clone(),
            path: path.to_owned(),
            columns: Vec::new(),
            reader: csv::ReaderBuilder::new()
                .buffer_capacity(1 << 16)
                .from_reader(Limited { file, left: MAX_RECORD_BYTES }),
            record: ByteRecord::new(),
            next_row: 0,
            is_crlf: false,
            knows_lines: true,
        };
        csv.read_header()?;
        let mut last = [0];
        let end_of_header = csv.byte().saturating_sub(1);
        csv.is_crlf =
            probe.read_at(&mut last, end_of_header).is_ok_and(|n| n == 1) && last == *b"\r";
        Ok(csv)
    }

    fn read_header(&mut self) -> Result<(), StepError> {
        let header = match self.reader.byte_headers() {
            Ok(header) if header.is_empty() => {
                let message = format!("{}: the file is empty; it needs a header", self.path);
                return Err(StepError::permanent(CSV_MALFORMED, message));
            }
            Ok(header) => header.clone(),
            Err(error) => return Err(self.read_error(&error)),
        };
        for name in &header {
            let name = String::from_utf8_lossy(name).into_owned();
            self.columns.push(unique_name(&self.columns, name));
        }
        Ok(())
    }

    /// The names of the columns, made unique: a second `a` is `a#2`.
    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Where a column stands in a row.
    pub(crate) fn column(&self, name: &str) -> Result<usize, StepError> {
        self.columns.iter().position(|column| column == name).ok_or_else(|| {
            let all = self.columns.join(", ");
            let message = format!("{}: there is no column {name:?}; there are {all}", self.path);
            StepError::permanent(CSV_COLUMN_MISSING, message)
        })
    }

    /// The row after the last one read, 0-based and without the header.
    pub(crate) fn next_row(&self) -> u64 {
        self.next_row
    }

    /// Where the row after the last one read starts; at the end, the size of the file.
    pub(crate) fn byte(&self) -> u64 {
        self.reader.position().byte()
    }

    /// Goes to a row that starts at a known place.
    pub(crate) fn seek(&mut self, row: u64, byte: u64) -> Result<(), StepError> {
        let mut position = Position::new();
        position.set_byte(byte);
        self.knows_lines &= byte == self.byte();
        self.next_row = row;
        self.reader.seek(position).map_err(|error| self.read_error(&error))
    }

    /// Reads the next row; `None` at the end of the file.
    pub(crate) fn read_row(&mut self) -> Result<Option<&ByteRecord>, StepError> {
        if self.next_row.is_multiple_of(ROWS_PER_CANCEL_CHECK) {
            self.ctx.check_cancelled()?;
        }
        self.reader.get_mut().left = MAX_RECORD_BYTES;
        match self.reader.read_byte_record(&mut self.record) {
            Ok(true) => {
                self.next_row += 1;
                Ok(Some(&self.record))
            }
            Ok(false) => Ok(None),
            Err(error) => {
                self.next_row += 1;
                Err(self.read_error(&error))
            }
        }
    }

    /// One field of the last row read, as text.
    pub(crate) fn text(&self, column: usize) -> Result<&str, StepError> {
        let field = self.record.get(column).unwrap_or_default();
        std::str::from_utf8(field).map_err(|_| self.bad_value(column, "is not UTF-8"))
    }

    /// An error about one field of the last row read.
    pub(crate) fn bad_value(&self, column: usize, what: &str) -> StepError {
        let field = self.record.get(column).unwrap_or_default();
        let shown: String = String::from_utf8_lossy(field).chars().take(60).collect();
        let name = self.columns.get(column).map_or("", String::as_str);
        let message = format!("{}: {name} {shown:?} {what}", self.place());
        StepError::permanent(CSV_BAD_VALUE, message)
    }

    /// An error about a file that is shorter or otherwise different from what the analyzer saw.
    pub(crate) fn changed(&self) -> StepError {
        let row = self.next_row;
        let message = format!("{}: changed since it was analyzed (at row {row})", self.path);
        StepError::permanent(FILE_CHANGED, message)
    }

    /// File and row of the last row read; rows count from 1, the header not included.
    fn place(&self) -> String {
        let Self { path, next_row: row, .. } = self;
        match self.record.position() {
            _ if *row == 0 => format!("{path}: the header"),
            Some(start) if self.knows_lines => {
                format!("{path}: row {row} (line {})", start.line() + u64::from(self.is_crlf))
            }
            _ => format!("{path}: row {row}"),
        }
    }

    fn read_error(&self, error: &csv::Error) -> StepError {
        let what = match error.kind() {
            ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("has {len} fields, the header {expected_len}")
            }
            // A broken disk or network mount; another worker may do better.
            ErrorKind::Io(e) if e.kind() != io::ErrorKind::FileTooLarge => {
                let message = format!("{}: {e}", self.path);
                return StepError::retryable(code::FILE_NOT_READABLE, message);
            }
            _ => error.to_string(),
        };
        StepError::permanent(CSV_MALFORMED, format!("{}: {what}", self.place()))
    }
}

fn unique_name(taken: &[String], name: String) -> String {
    if !taken.contains(&name) {
        return name;
    }
    let numbered = (2..).map(|n| format!("{name}#{n}"));
    numbered.into_iter().find(|name| !taken.contains(name)).unwrap_or(name)
}

/// A file that refuses to give more than so many bytes to one record.
struct Limited {
    file: File,
    left: u64,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let message =
                format!("a record is longer than {MAX_RECORD_BYTES} bytes; is a quote open?");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let bytes = self.file.read(buffer)?;
        self.left = self.left.saturating_sub(bytes as u64);
        Ok(bytes)
    }
}

impl Seek for Limited {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
