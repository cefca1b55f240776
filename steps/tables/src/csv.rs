//! Tables as comma-separated values, after RFC 4180, for spreadsheets and notebooks.

use crate::column::Value;
use crate::table::Table;

impl Table {
    /// Writes the table as CSV with a header line and `\n` line ends.
    ///
    /// A missing value is an empty field, empty text is `""`. Numbers are written so that
    /// reading them gives the same number; `inf`, `-inf` and `NaN` are spelled so. A list is
    /// its numbers separated by spaces.
    pub fn to_csv(&self) -> String {
        let mut csv = String::new();
        let names: Vec<String> = self.names().map(text).collect();
        push_line(&mut csv, &names);
        for row in 0..self.n_rows() {
            let fields: Vec<String> = self.columns().map(|(_, c)| field(c.get(row))).collect();
            push_line(&mut csv, &fields);
        }
        csv
    }
}

fn push_line(csv: &mut String, fields: &[String]) {
    csv.push_str(&fields.join(","));
    csv.push('\n');
}

fn field(value: Value<'_>) -> String {
    match value {
        Value::Missing => String::new(),
        Value::U64(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::F64(value) => value.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Text(value) => text(value),
        Value::ListU64(values) => values
            .iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// Text, in quotation marks where it would be misread without.
fn text(text: &str) -> String {
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use crate::column::Column;
    use crate::table::Table;

    #[test]
    fn every_kind_is_written_and_quoted_where_needed() {
        let table = Table::new([
            (
                "a,b",
                Column::Text(vec![Some("x \"y\"".into()), None, Some(String::new())]),
            ),
            ("f", Column::f64([0.1, f64::INFINITY, f64::NAN])),
            ("u", Column::u64([u64::MAX, 0, 1])),
            ("t", Column::bool([true, false, true])),
            ("l", Column::ListU64(vec![vec![1, 2], vec![], vec![3]])),
        ])
        .unwrap();
        let expected = "\"a,b\",f,u,t,l\n\
            \"x \"\"y\"\"\",0.1,18446744073709551615,true,1 2\n\
            ,inf,0,false,\n\
            \"\",NaN,1,true,3\n";
        assert_eq!(table.to_csv(), expected);
    }

    #[test]
    fn an_empty_table_has_a_header() {
        assert_eq!(
            Table::new([("x", Column::u64([]))]).unwrap().to_csv(),
            "x\n"
        );
    }
}
