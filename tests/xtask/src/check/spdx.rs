//! SPDX licence expressions: whether what a crate offers can be taken under permitted licences
//! alone. Knows no particular licence.

/// Whether `expression` can be met with only licences that `is_permitted` accepts. `A/B`, as
/// old manifests have it, means `A OR B`; `X WITH Y` is asked as one licence.
///
/// # Errors
///
/// The expression cannot be read.
pub(super) fn is_permitted(
    expression: &str,
    is_permitted: &dyn Fn(&str) -> bool,
) -> Result<bool, String> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut reader = Reader {
        words: spaced.split_whitespace().collect(),
        next: 0,
        is_permitted,
    };
    let verdict = reader.either();
    match (verdict, reader.peek()) {
        (Some(verdict), None) => Ok(verdict),
        _ => Err(format!("cannot read the licence `{expression}`")),
    }
}

struct Reader<'a> {
    words: Vec<&'a str>,
    next: usize,
    is_permitted: &'a dyn Fn(&str) -> bool,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).copied()
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.next += usize::from(found);
        found
    }

    /// `both OR both OR …`, which binds least.
    fn either(&mut self) -> Option<bool> {
        let mut verdict = self.both()?;
        while self.take("OR") {
            verdict |= self.both()?;
        }
        Some(verdict)
    }

    /// `one AND one AND …`
    fn both(&mut self) -> Option<bool> {
        let mut verdict = self.one()?;
        while self.take("AND") {
            verdict &= self.one()?;
        }
        Some(verdict)
    }

    /// A licence, or an expression in parentheses.
    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let verdict = self.either()?;
            return self.take(")").then_some(verdict);
        }
        let licence = self.name()?;
        if !self.take("WITH") {
            return Some((self.is_permitted)(licence));
        }
        let exception = self.name()?;
        Some((self.is_permitted)(&format!("{licence} WITH {exception}")))
    }

    fn name(&mut self) -> Option<&'a str> {
        let name = self.peek()?;
        self.next += 1;
        (!matches!(name, "OR" | "AND" | "WITH" | "(" | ")")).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: &[&str] = &[
        "MIT",
        "Apache-2.0",
        "Zlib",
        "Apache-2.0 WITH LLVM-exception",
    ];

    fn ask(expression: &str) -> Result<bool, String> {
        is_permitted(expression, &|licence| FREE.contains(&licence))
    }

    #[test]
    fn alternatives_need_one_and_conjunctions_need_all() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("MIT OR GPL-3.0-only", true),
            ("GPL-3.0-only OR MIT", true),
            ("MIT/Apache-2.0", true),
            ("GPL-2.0 / MIT", true),
            ("MIT AND OFL-1.1", false),
            ("MIT AND Zlib", true),
            // AND binds tighter than OR.
            ("MIT OR Zlib AND GPL-3.0-only", true),
            ("(MIT OR Zlib) AND GPL-3.0-only", false),
            ("(MIT OR GPL-3.0-only) AND Zlib", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("GPL-2.0 WITH Classpath-exception-2.0 OR Zlib", true),
            ("MIT WITH LLVM-exception", false),
        ] {
            assert_eq!(ask(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_permission() {
        for expression in [
            "", "MIT OR", "OR MIT", "(MIT", "MIT)", "MIT Zlib", "MIT WITH",
        ] {
            assert!(ask(expression).is_err(), "{expression}");
        }
    }
}
