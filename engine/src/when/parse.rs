//! Tokens as an expression.

use super::tokens::Token;
use super::{FORMS, Node, What};
use crate::problem::Problem;
use crate::source::Place;

/// The deepest nesting of parentheses and `not`.
const DEEPEST: usize = 64;

/// Parses an expression: `or` binds least, then `and`, then `not`, then comparisons.
pub(super) struct Parser<'a> {
    tokens: &'a [(Token, Place)],
    at: usize,
    end: Place,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// Builds a parser of tokens, after which the text ends at `end`.
    pub(super) fn new(tokens: &'a [(Token, Place)], end: Place) -> Self {
        Self {
            tokens,
            at: 0,
            end,
            depth: 0,
        }
    }

    /// Parses all of it.
    pub(super) fn whole(mut self) -> Result<Node, Problem> {
        let root = self.either()?;
        self.finish()?;
        Ok(root)
    }

    fn next_place(&self) -> &Place {
        self.tokens.get(self.at).map_or(&self.end, |(_, p)| p)
    }

    fn take(&mut self, wanted: &Token) -> bool {
        let is_next = self.tokens.get(self.at).is_some_and(|(t, _)| t == wanted);
        self.at += usize::from(is_next);
        is_next
    }

    fn take_word(&mut self, word: &str) -> bool {
        self.take(&Token::Word(word.to_owned()))
    }

    fn unexpected(&self, expected: &str) -> Problem {
        let label = if self.at < self.tokens.len() {
            "not expected here"
        } else {
            "it ends here"
        };
        Problem::at(self.next_place(), format!("expected {expected}"), label).help(FORMS)
    }

    fn finish(&self) -> Result<(), Problem> {
        match self.at < self.tokens.len() {
            true => Err(self.unexpected("the end, or `and` or `or`")),
            false => Ok(()),
        }
    }

    fn deeper(&mut self) -> Result<(), Problem> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let message = format!("the expression is nested more than {DEEPEST} deep");
            return Err(Problem::at(self.next_place(), message, "too deep"));
        }
        Ok(())
    }

    fn either(&mut self) -> Result<Node, Problem> {
        let mut left = self.both()?;
        while self.take_word("or") {
            let right = self.both()?;
            left = joined(What::Either, left, right);
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Node, Problem> {
        let mut left = self.negated()?;
        while self.take_word("and") {
            let right = self.negated()?;
            left = joined(What::Both, left, right);
        }
        Ok(left)
    }

    fn negated(&mut self) -> Result<Node, Problem> {
        let place = self.next_place().clone();
        if !self.take_word("not") {
            return self.comparison();
        }
        self.deeper()?;
        let inner = self.negated()?;
        self.depth -= 1;
        Ok(Node {
            place: around(&place, &inner.place),
            what: What::Not(Box::new(inner)),
        })
    }

    fn comparison(&mut self) -> Result<Node, Problem> {
        let left = self.operand()?;
        if let Some((Token::Compare(comparison), _)) = self.tokens.get(self.at) {
            self.at += 1;
            let right = self.operand()?;
            return Ok(joined(|a, b| What::Compare(*comparison, a, b), left, right));
        }
        if self.take_word("in") {
            let right = self.operand()?;
            return Ok(joined(What::In, left, right));
        }
        Ok(left)
    }

    fn operand(&mut self) -> Result<Node, Problem> {
        let Some((token, place)) = self.tokens.get(self.at) else {
            return Err(self.unexpected("a value"));
        };
        let what = match token {
            Token::Value(value) => What::Literal(value.clone()),
            Token::Reference(name) => What::Reference(name.clone()),
            Token::Mark('(') => return self.parenthesis(),
            Token::Mark('[') => return self.list(),
            _ => return Err(self.unexpected("a value")),
        };
        self.at += 1;
        Ok(Node {
            what,
            place: place.clone(),
        })
    }

    fn parenthesis(&mut self) -> Result<Node, Problem> {
        self.at += 1;
        self.deeper()?;
        let inner = self.either()?;
        self.depth -= 1;
        match self.take(&Token::Mark(')')) {
            true => Ok(inner),
            false => Err(self.unexpected("`)`")),
        }
    }

    fn list(&mut self) -> Result<Node, Problem> {
        let place = self.next_place().clone();
        self.at += 1;
        self.deeper()?;
        let mut items = Vec::new();
        let mut end = self.next_place().clone();
        while !self.take(&Token::Mark(']')) {
            items.push(self.operand()?);
            let closes = self.take(&Token::Mark(','))
                || matches!(self.tokens.get(self.at), Some((Token::Mark(']'), _)));
            if !closes {
                return Err(self.unexpected("`,` or `]`"));
            }
            end = self.next_place().clone();
        }
        self.depth -= 1;
        Ok(Node {
            place: around(&place, &end),
            what: What::List(items),
        })
    }
}

fn joined(what: impl FnOnce(Box<Node>, Box<Node>) -> What, left: Node, right: Node) -> Node {
    Node {
        place: around(&left.place, &right.place),
        what: what(Box::new(left), Box::new(right)),
    }
}

fn around(from: &Place, to: &Place) -> Place {
    let end = to.span.end.max(from.span.end);
    Place::new(from.source, from.span.start..end)
}
