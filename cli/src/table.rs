/// Rows of text in aligned columns.
#[derive(Debug)]
pub(crate) struct Table {
    columns: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a header.
    pub(crate) fn with_header(header: &[&str]) -> Self {
        let mut table = Self::bare(header.len());
        table.row(header.iter().map(|&h| h.to_owned()));
        table
    }

    /// A table without a header.
    pub(crate) fn bare(columns: usize) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row. Missing cells are empty, cells beyond the last column are dropped.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<_> =
            cells.into_iter().take(self.columns).map(|c| printable(&c)).collect();
        cells.resize(self.columns, String::new());
        self.rows.push(cells);
    }

    /// The table as lines, without blanks at their ends.
    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let line: String =
                row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}  ")).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Values come from tasks and handlers; a control character in one must not reach the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::with_header(&["ID", "STATE", "X"]);
        table.row(["1".into(), "complete".into()]);
        table.row(["größe".into(), "é".into(), "z".into(), "dropped".into()]);
        assert_eq!(table.render(), "ID     STATE     X\n1      complete\ngröße  é         z\n");
    }

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
