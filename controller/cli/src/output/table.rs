//! Plain aligned text, as Docker's tables are.

/// Between two columns.
const GAP: usize = 3;

/// The header and the rows, each column as wide as its widest cell. A cell is one line without
/// control characters, whatever it is made of.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let header = header.map(str::to_owned);
    let rows: Vec<[String; N]> = std::iter::once(&header)
        .chain(rows)
        .map(|row| row.clone().map(|cell| clean(&cell)))
        .collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:<0$}", width + GAP));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The first `width` characters; a cut is shown by `…`.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

fn clean(cell: &str) -> String {
    cell.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let rows = [
            ["a".to_owned(), "long name".to_owned(), String::new()],
            ["bcdé".to_owned(), "x".to_owned(), "y".to_owned()],
        ];
        assert_eq!(
            table(["ID", "NAME", "LAST"], &rows),
            "ID     NAME        LAST\n\
             a      long name\n\
             bcdé   x           y\n"
        );
        assert_eq!(table(["ONLY"], &[]), "ONLY\n");
    }

    #[test]
    fn a_cell_can_not_move_the_cursor() {
        let rows = [["a\n\u{1b}[2J\tb".to_owned()]];
        assert_eq!(table(["X"], &rows), "X\na  [2J b\n");
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(cut("redis-server --save", 8), "redis-s…");
        assert_eq!(cut("short", 8), "short");
    }
}
