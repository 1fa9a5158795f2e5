//! Text → expression tree. Recursive descent; each level binds tighter than the one above, in the order of
//! jsonpath-rw's table: `+ -`, `* /`, `..`, `.`, `|`, `where`, brackets. (So `a.b|c.d` is `a.(b|c).d`.)

mod words;

use serde_json::Value;

use super::{
    DEPTH_MAX, PathError, TEXT_BYTES_MAX,
    expression::{Comparison, Expression, Operand, Operator, Test},
};
use words::is_name;

/// Reads the whole text.
pub(super) fn parse(text: &str) -> Result<Expression, PathError> {
    let mut parser = Parser { text, characters: text.chars().collect(), at: 0, depth: 0 };
    if text.len() > TEXT_BYTES_MAX {
        return Err(parser.error(format!("longer than {TEXT_BYTES_MAX} bytes")));
    }
    let expression = parser.expression()?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(expression),
        Some(found) => Err(parser.error(format!("unexpected `{found}`"))),
    }
}

struct Parser<'a> {
    text: &'a str,
    characters: Vec<char>,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn error(&self, reason: impl Into<String>) -> PathError {
        PathError { text: self.text.chars().take(120).collect(), position: self.at + 1, reason: reason.into() }
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn peek_after(&self, count: usize) -> Option<char> {
        self.characters.get(self.at + count).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Takes `expected` if it comes next, after any space.
    fn take(&mut self, expected: char) -> bool {
        self.skip_space();
        let found = self.peek() == Some(expected);
        if found {
            self.at += 1;
        }
        found
    }

    fn expect(&mut self, expected: char) -> Result<(), PathError> {
        if self.take(expected) { Ok(()) } else { Err(self.error(format!("expected `{expected}`"))) }
    }

    fn expression(&mut self) -> Result<Expression, PathError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(format!("nested deeper than {DEPTH_MAX}")));
        }
        let expression = self.sum();
        self.depth -= 1;
        match expression? {
            Operand::Path(expression) => Ok(expression),
            Operand::Literal(_) => Err(self.error("a number alone is not a path")),
        }
    }

    fn sum(&mut self) -> Result<Operand, PathError> {
        let mut left = self.product()?;
        loop {
            let operator = match self.next_operator(['+', '-']) {
                Some('+') => Operator::Add,
                Some(_) => Operator::Subtract,
                None => return Ok(left),
            };
            let right = self.product()?;
            left = arithmetic(operator, left, right);
        }
    }

    fn product(&mut self) -> Result<Operand, PathError> {
        let mut left = self.operand()?;
        loop {
            let operator = match self.next_operator(['*', '/']) {
                Some('*') => Operator::Multiply,
                Some(_) => Operator::Divide,
                None => return Ok(left),
            };
            let right = self.operand()?;
            left = arithmetic(operator, left, right);
        }
    }

    fn next_operator(&mut self, operators: [char; 2]) -> Option<char> {
        self.skip_space();
        let found = self.peek().filter(|c| operators.contains(c))?;
        self.at += 1;
        Some(found)
    }

    fn operand(&mut self) -> Result<Operand, PathError> {
        self.skip_space();
        let is_number = match self.peek() {
            Some('-') => self.peek_after(1).is_some_and(|c| c.is_ascii_digit()),
            Some(c) => c.is_ascii_digit(),
            None => false,
        };
        if is_number { Ok(Operand::Literal(self.number()?)) } else { Ok(Operand::Path(self.descendants()?)) }
    }

    fn descendants(&mut self) -> Result<Expression, PathError> {
        let mut left = self.children()?;
        loop {
            self.skip_space();
            if !(self.peek() == Some('.') && self.peek_after(1) == Some('.')) {
                return Ok(left);
            }
            self.at += 2;
            left = Expression::Descendant(Box::new(left), Box::new(self.children()?));
        }
    }

    fn children(&mut self) -> Result<Expression, PathError> {
        let mut left = self.alternatives()?;
        loop {
            self.skip_space();
            if self.peek() != Some('.') || self.peek_after(1) == Some('.') {
                return Ok(left);
            }
            self.at += 1;
            left = Expression::Child(Box::new(left), Box::new(self.alternatives()?));
        }
    }

    fn alternatives(&mut self) -> Result<Expression, PathError> {
        let mut left = self.wheres()?;
        while self.take('|') {
            left = Expression::Union(Box::new(left), Box::new(self.wheres()?));
        }
        Ok(left)
    }

    fn wheres(&mut self) -> Result<Expression, PathError> {
        let mut left = self.bracketed()?;
        loop {
            self.skip_space();
            let word: String = self.characters.iter().skip(self.at).take(5).collect();
            if word != "where" || self.peek_after(5).is_some_and(is_name) {
                return Ok(left);
            }
            self.at += 5;
            left = Expression::Where(Box::new(left), Box::new(self.bracketed()?));
        }
    }

    fn bracketed(&mut self) -> Result<Expression, PathError> {
        let mut left = self.primary()?;
        while self.take('[') {
            left = Expression::Child(Box::new(left), Box::new(self.inside_brackets()?));
        }
        Ok(left)
    }

    fn primary(&mut self) -> Result<Expression, PathError> {
        self.skip_space();
        match self.peek() {
            None => Err(self.error("the path ends where a name should be")),
            Some('$') => {
                self.at += 1;
                Ok(Expression::Root)
            }
            Some('(') => {
                self.at += 1;
                let inner = self.expression()?;
                self.expect(')')?;
                Ok(inner)
            }
            Some('[') => {
                self.at += 1;
                self.inside_brackets()
            }
            Some('*') => {
                self.at += 1;
                Ok(Expression::AnyField)
            }
            Some('`') => self.function(),
            Some('@') if !self.peek_after(1).is_some_and(is_name) => {
                self.at += 1;
                Ok(Expression::This)
            }
            Some(_) => {
                let mut names = vec![self.name()?];
                while self.take(',') {
                    names.push(self.name()?);
                }
                Ok(Expression::Fields(names))
            }
        }
    }

    /// After `[`: index, slice, names, `*` or a filter; takes the `]`.
    fn inside_brackets(&mut self) -> Result<Expression, PathError> {
        self.skip_space();
        let expression = match self.peek() {
            Some('*') => {
                self.at += 1;
                Expression::Slice(None, None)
            }
            Some('?') => {
                self.at += 1;
                self.filter()?
            }
            Some(c) if c == ':' || c == '-' || c.is_ascii_digit() => self.index_or_slice()?,
            _ => {
                let mut names = vec![self.name()?];
                while self.take(',') {
                    names.push(self.name()?);
                }
                Expression::Fields(names)
            }
        };
        self.expect(']')?;
        Ok(expression)
    }

    fn index_or_slice(&mut self) -> Result<Expression, PathError> {
        let first = self.maybe_integer()?;
        if self.take(':') {
            let last = self.maybe_integer()?;
            return Ok(Expression::Slice(first, last));
        }
        first.map(Expression::Index).ok_or_else(|| self.error("expected an index"))
    }

    fn maybe_integer(&mut self) -> Result<Option<i64>, PathError> {
        self.skip_space();
        match self.peek() {
            Some(c) if c == '-' || c.is_ascii_digit() => {
                let number = self.number()?;
                number.as_i64().map(Some).ok_or_else(|| self.error("an index is a whole number"))
            }
            _ => Ok(None),
        }
    }

    fn filter(&mut self) -> Result<Expression, PathError> {
        let grouped = self.take('(');
        let mut comparisons = vec![self.comparison()?];
        while self.take('&') {
            comparisons.push(self.comparison()?);
        }
        if grouped {
            self.expect(')')?;
        }
        Ok(Expression::Filter(comparisons))
    }

    fn comparison(&mut self) -> Result<Comparison, PathError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(format!("nested deeper than {DEPTH_MAX}")));
        }
        let target = self.descendants();
        self.depth -= 1;
        let target = target?;
        self.skip_space();
        let mut operator = String::new();
        while let Some(c) = self.peek().filter(|c| "=!<>~".contains(*c)) {
            operator.push(c);
            self.at += 1;
        }
        let test = match operator.as_str() {
            "" => None,
            "=" | "==" => Some(Test::Equal(self.constant()?)),
            "!=" => Some(Test::NotEqual(self.constant()?)),
            "<" => Some(Test::Less(self.constant()?)),
            "<=" => Some(Test::LessOrEqual(self.constant()?)),
            ">" => Some(Test::Greater(self.constant()?)),
            ">=" => Some(Test::GreaterOrEqual(self.constant()?)),
            "~" | "=~" => {
                let pattern = self.constant()?;
                let pattern = pattern.as_str().ok_or_else(|| self.error("`~` needs a text"))?.to_owned();
                Some(Test::Matches(self.regex(&format!("^(?:{pattern})"))?))
            }
            _ => return Err(self.error(format!("unknown comparison `{operator}`"))),
        };
        Ok(Comparison { target, test })
    }
}

fn arithmetic(operator: Operator, left: Operand, right: Operand) -> Operand {
    let literal = |operand| match operand {
        Operand::Path(Expression::Fields(names)) if names.len() == 1 => {
            Operand::Literal(Value::String(names.into_iter().next().expect("there is one")))
        }
        other => other,
    };
    Operand::Path(Expression::Arithmetic(operator, Box::new(literal(left)), Box::new(literal(right))))
}
