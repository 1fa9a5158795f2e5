//! Prices as expressions, instead of CloudKitty's `pyscripts`: a small language of decimals, texts and conditions. It has no
//! loops, no assignment and no way out of itself: each part of a text is evaluated once at most, so that the length of the
//! text bounds the work.
//!
//! ```text
//! if(flavor_name == "gpu" and quantity > 100, price * 0.9, price) + max(0, quantity - 1000) * 0.002
//! ```
//!
//! Names are `price` (what the hashmap says), `quantity`, and whatever a line is grouped by or knows (`flavor_name`, `state`);
//! an unknown name is an empty text. Numbers are decimals with Python's 28 digits. A text that is a number can be counted
//! with by `number(text, otherwise)`. Conditions are `== != < <= > >= and or not`; functions `if(condition, then, else)`,
//! `min`, `max`, `round(number, places)` (half-even), `ceil`, `floor`, `abs`, `number`.

mod check;

use bigdecimal::{BigDecimal, RoundingMode, Zero};

use crate::decimal::{add, decimal, multiply};

/// Longest text of an expression: a page of conditions.
const TEXT_BYTES_MAX: usize = 4096;
/// How deep parts stand in parts: what a person still reads, and far less than a stack.
const DEPTH_MAX: usize = 40;
/// Digits after the point that may be rounded to.
const PLACES_MAX: i64 = 28;

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It is none.
    #[error("at character {at}: {reason}")]
    Written {
        /// Where, from 1.
        at: usize,
        /// What is wrong there.
        reason: String,
    },
    /// It has no value for this usage.
    #[error("{reason}")]
    Valued {
        /// Why.
        reason: String,
    },
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
enum Valued {
    Number(BigDecimal),
    Text(String),
    Truth(bool),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Binary {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Plus,
    Minus,
    Times,
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    If,
    Min,
    Max,
    Round,
    Ceil,
    Floor,
    Abs,
    Number,
}

impl Function {
    /// The function of a name, and how many arguments it takes.
    fn named(name: &str) -> Option<(Self, std::ops::RangeInclusive<usize>)> {
        Some(match name {
            "if" => (Self::If, 3..=3),
            "min" => (Self::Min, 1..=16),
            "max" => (Self::Max, 1..=16),
            "round" => (Self::Round, 2..=2),
            "ceil" => (Self::Ceil, 1..=1),
            "floor" => (Self::Floor, 1..=1),
            "abs" => (Self::Abs, 1..=1),
            "number" => (Self::Number, 1..=2),
            _ => return None,
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Number(BigDecimal),
    Text(String),
    Name(String),
    Not(Box<Node>),
    Negative(Box<Node>),
    Binary(Binary, Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
}

/// A price as an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    root: Node,
}

impl Expression {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > TEXT_BYTES_MAX {
            let reason = format!("it is longer than {TEXT_BYTES_MAX} bytes");
            return Err(ExpressionError::Written { at: TEXT_BYTES_MAX + 1, reason });
        }
        let mut parser = Parser { tokens: tokens(text)?, next: 0 };
        let root = parser.binary(0, 0)?;
        match parser.peek() {
            Token::End => Ok(Self { root }),
            _ => Err(parser.wrong("the end is expected here")),
        }
    }

    /// The price of a usage; `known` says what a name stands for in the usage, if anything.
    pub fn price(
        &self,
        price: &BigDecimal,
        quantity: &BigDecimal,
        known: &dyn Fn(&str) -> Option<String>,
    ) -> Result<BigDecimal, ExpressionError> {
        let value = Scope { price, quantity, known }.value(&self.root)?;
        number_of(value, "a price")
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(BigDecimal),
    Text(String),
    Name(String),
    Sign(&'static str),
    End,
}

/// Two characters before one, so that `<=` is not `<`.
const SIGNS: [&str; 13] = ["==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "(", ")", ","];

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ExpressionError> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = text[..text.len() - rest.len()].chars().count() + 1;
        let wrong = |reason: String| ExpressionError::Written { at, reason };
        let Some(first) = rest.chars().next() else {
            found.push((at, Token::End));
            return Ok(found);
        };
        let length = |is_part: fn(char) -> bool| rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
        let (token, taken) = if first.is_ascii_digit() || first == '.' {
            let taken = length(|c| c.is_ascii_digit() || c == '.');
            let number = decimal(&rest[..taken]).map_err(|error| wrong(error.to_string()))?;
            (Token::Number(number), taken)
        } else if first.is_alphabetic() || first == '_' {
            let taken = length(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
            (Token::Name(rest[..taken].to_owned()), taken)
        } else if first == '"' || first == '\'' {
            let end = rest[1..].find(first).ok_or_else(|| wrong("a text does not end".to_owned()))?;
            (Token::Text(rest[1..=end].to_owned()), end + 2)
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            return Err(wrong(format!("`{first}` is not understood")));
        };
        found.push((at, token));
        rest = &rest[taken..];
    }
}

/// Signs between two parts by how strongly they bind, the weakest first.
const LEVELS: [&[(&str, Binary)]; 5] = [
    &[("or", Binary::Or)],
    &[("and", Binary::And)],
    &[
        ("==", Binary::Equal),
        ("!=", Binary::Unequal),
        ("<=", Binary::LessOrEqual),
        (">=", Binary::GreaterOrEqual),
        ("<", Binary::Less),
        (">", Binary::Greater),
    ],
    &[("+", Binary::Plus), ("-", Binary::Minus)],
    &[("*", Binary::Times), ("/", Binary::Over)],
];

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    fn wrong(&self, reason: impl Into<String>) -> ExpressionError {
        let at = self.tokens.get(self.next).or(self.tokens.last()).map_or(1, |(at, _)| *at);
        ExpressionError::Written { at, reason: reason.into() }
    }

    fn is_sign(&self, wanted: &str) -> bool {
        match self.peek() {
            Token::Sign(sign) => *sign == wanted,
            Token::Name(name) => name == wanted,
            _ => false,
        }
    }

    fn take(&mut self, wanted: &str) -> Result<(), ExpressionError> {
        if !self.is_sign(wanted) {
            return Err(self.wrong(format!("`{wanted}` is expected")));
        }
        self.next += 1;
        Ok(())
    }

    fn binary(&mut self, level: usize, depth: usize) -> Result<Node, ExpressionError> {
        let Some(signs) = LEVELS.get(level) else { return self.single(depth) };
        let mut left = self.binary(level + 1, depth)?;
        // A chain of signs is as deep as it is long.
        let mut chained = depth;
        while let Some((_, sign)) = signs.iter().find(|(sign, _)| self.is_sign(sign)) {
            self.next += 1;
            chained += 1;
            if chained > DEPTH_MAX {
                return Err(self.wrong(format!("more than {DEPTH_MAX} parts stand in each other")));
            }
            let right = self.binary(level + 1, chained)?;
            left = Node::Binary(*sign, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn single(&mut self, depth: usize) -> Result<Node, ExpressionError> {
        if depth > DEPTH_MAX {
            return Err(self.wrong(format!("more than {DEPTH_MAX} parts stand in each other")));
        }
        let token = self.peek().clone();
        match token {
            Token::Number(number) => {
                self.next += 1;
                Ok(Node::Number(number))
            }
            Token::Text(text) => {
                self.next += 1;
                Ok(Node::Text(text))
            }
            Token::Sign("-") => {
                self.next += 1;
                Ok(Node::Negative(Box::new(self.single(depth + 1)?)))
            }
            Token::Sign("(") => {
                self.next += 1;
                let inner = self.binary(0, depth + 1)?;
                self.take(")")?;
                Ok(inner)
            }
            // `not a == b` is `not (a == b)`, as in Python.
            Token::Name(name) if name == "not" => {
                self.next += 1;
                Ok(Node::Not(Box::new(self.binary(2, depth + 1)?)))
            }
            Token::Name(name) if name == "and" || name == "or" => Err(self.wrong("a value is expected")),
            Token::Name(name) => {
                self.next += 1;
                if !self.is_sign("(") {
                    return Ok(Node::Name(name));
                }
                self.call(&name, depth)
            }
            Token::Sign(_) | Token::End => Err(self.wrong("a value is expected")),
        }
    }

    fn call(&mut self, name: &str, depth: usize) -> Result<Node, ExpressionError> {
        let Some((function, counts)) = Function::named(name) else {
            return Err(self.wrong(format!("there is no function `{name}`")));
        };
        self.take("(")?;
        let mut arguments = vec![self.binary(0, depth + 1)?];
        while self.is_sign(",") {
            self.next += 1;
            arguments.push(self.binary(0, depth + 1)?);
        }
        if !counts.contains(&arguments.len()) {
            let (least, most) = (counts.start(), counts.end());
            return Err(self.wrong(format!("`{name}` takes {least} to {most} values, not {}", arguments.len())));
        }
        self.take(")")?;
        Ok(Node::Call(function, arguments))
    }
}

struct Scope<'a> {
    price: &'a BigDecimal,
    quantity: &'a BigDecimal,
    known: &'a dyn Fn(&str) -> Option<String>,
}

fn valued(reason: String) -> ExpressionError {
    ExpressionError::Valued { reason }
}

fn shown(value: &Valued) -> String {
    match value {
        Valued::Number(number) => number.to_plain_string(),
        Valued::Text(text) => format!("\"{}\"", text.chars().take(40).collect::<String>()),
        Valued::Truth(truth) => truth.to_string(),
    }
}

fn number_of(value: Valued, what: &str) -> Result<BigDecimal, ExpressionError> {
    match value {
        Valued::Number(number) => Ok(number),
        other => Err(valued(format!("{what} is a number, not {}", shown(&other)))),
    }
}

fn truth_of(value: Valued) -> Result<bool, ExpressionError> {
    match value {
        Valued::Truth(truth) => Ok(truth),
        other => Err(valued(format!("a condition is expected, not {}", shown(&other)))),
    }
}

impl Scope<'_> {
    fn number(&self, node: &Node) -> Result<BigDecimal, ExpressionError> {
        number_of(self.value(node)?, "what is counted with")
    }

    fn value(&self, node: &Node) -> Result<Valued, ExpressionError> {
        Ok(match node {
            Node::Number(number) => Valued::Number(number.clone()),
            Node::Text(text) => Valued::Text(text.clone()),
            Node::Name(name) => match name.as_str() {
                "price" => Valued::Number(self.price.clone()),
                "quantity" => Valued::Number(self.quantity.clone()),
                "true" => Valued::Truth(true),
                "false" => Valued::Truth(false),
                name => Valued::Text((self.known)(name).unwrap_or_default()),
            },
            Node::Not(inner) => Valued::Truth(!truth_of(self.value(inner)?)?),
            Node::Negative(inner) => Valued::Number(-self.number(inner)?),
            Node::Binary(Binary::And, left, right) => {
                Valued::Truth(truth_of(self.value(left)?)? && truth_of(self.value(right)?)?)
            }
            Node::Binary(Binary::Or, left, right) => {
                Valued::Truth(truth_of(self.value(left)?)? || truth_of(self.value(right)?)?)
            }
            Node::Binary(sign, left, right) => self.binary(*sign, self.value(left)?, self.value(right)?)?,
            Node::Call(function, arguments) => self.call(*function, arguments)?,
        })
    }

    fn binary(&self, sign: Binary, left: Valued, right: Valued) -> Result<Valued, ExpressionError> {
        let truth = |truth: bool| Ok(Valued::Truth(truth));
        match (sign, &left, &right) {
            // A text that is compared with a number is the number that it says; if it says none they differ.
            (Binary::Equal | Binary::Unequal, Valued::Text(text), Valued::Number(number))
            | (Binary::Equal | Binary::Unequal, Valued::Number(number), Valued::Text(text)) => {
                let is_same = decimal(text).is_ok_and(|own| own == *number);
                return truth(is_same == (sign == Binary::Equal));
            }
            (Binary::Equal, ..) => return truth(left == right),
            (Binary::Unequal, ..) => return truth(left != right),
            _ => {}
        }
        let what = "what is counted with";
        let (left, right) = (number_of(left, what)?, number_of(right, what)?);
        Ok(match sign {
            Binary::Less => Valued::Truth(left < right),
            Binary::LessOrEqual => Valued::Truth(left <= right),
            Binary::Greater => Valued::Truth(left > right),
            Binary::GreaterOrEqual => Valued::Truth(left >= right),
            Binary::Plus => Valued::Number(add(&left, &right)),
            Binary::Minus => Valued::Number(add(&left, &-right)),
            Binary::Times => Valued::Number(multiply(&left, &right)),
            Binary::Over if right.is_zero() => return Err(valued("it divides by zero".to_owned())),
            Binary::Over => Valued::Number(multiply(&(left / right), &BigDecimal::from(1))),
            Binary::Equal | Binary::Unequal | Binary::And | Binary::Or => {
                return Err(valued("a number is expected".to_owned()));
            }
        })
    }

    fn call(&self, function: Function, arguments: &[Node]) -> Result<Valued, ExpressionError> {
        let first = arguments.first().ok_or_else(|| valued("a value is missing".to_owned()))?;
        let second = || arguments.get(1).ok_or_else(|| valued("a value is missing".to_owned()));
        Ok(match function {
            Function::If => {
                let chosen = if truth_of(self.value(first)?)? { 1 } else { 2 };
                self.value(arguments.get(chosen).ok_or_else(|| valued("a value is missing".to_owned()))?)?
            }
            Function::Min | Function::Max => {
                let mut best = self.number(first)?;
                for other in &arguments[1..] {
                    let other = self.number(other)?;
                    let is_better = if function == Function::Min { other < best } else { other > best };
                    if is_better {
                        best = other;
                    }
                }
                Valued::Number(best)
            }
            Function::Round => {
                let places = self.number(second()?)?;
                let places =
                    places.to_plain_string().parse::<i64>().ok().filter(|places| (0..=PLACES_MAX).contains(places));
                let places = places.ok_or_else(|| valued(format!("0 to {PLACES_MAX} places can be rounded to")))?;
                Valued::Number(self.number(first)?.with_scale_round(places, RoundingMode::HalfEven))
            }
            Function::Ceil => Valued::Number(self.number(first)?.with_scale_round(0, RoundingMode::Ceiling)),
            Function::Floor => Valued::Number(self.number(first)?.with_scale_round(0, RoundingMode::Floor)),
            Function::Abs => Valued::Number(self.number(first)?.abs()),
            Function::Number => match self.value(first)? {
                Valued::Number(number) => Valued::Number(number),
                Valued::Text(text) => match decimal(&text) {
                    Ok(number) => Valued::Number(number),
                    Err(error) if arguments.len() < 2 => return Err(valued(error.to_string())),
                    Err(_) => Valued::Number(self.number(second()?)?),
                },
                other => return Err(valued(format!("{} is no number", shown(&other)))),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priced(text: &str) -> Result<String, String> {
        let known = |name: &str| match name {
            "flavor_name" => Some("gpu".to_owned()),
            "vcpus" => Some("8".to_owned()),
            _ => None,
        };
        let number = |text: &str| decimal(text).expect("a number");
        let expression = Expression::parse(text).map_err(|error| error.to_string())?;
        let price = expression.price(&number("0.30"), &number("120"), &known).map_err(|error| error.to_string())?;
        Ok(price.normalized().to_plain_string())
    }

    #[test]
    fn expressions_count_in_decimals_and_bind_as_people_read_them() {
        for (text, expected) in [
            ("price", "0.3"),
            ("0.1 + 0.2", "0.3"),
            ("1 + 2 * 3 - 4 / 8", "6.5"),
            ("(1 + 2) * -3", "-9"),
            ("1 / 3", "0.3333333333333333333333333333"),
            ("10 - 3 - 2", "5"),
            ("if(flavor_name == \"gpu\" and quantity > 100, price * 0.9, price)", "0.27"),
            ("if(not flavor_name == 'gpu' or quantity <= 100, 1, 2)", "2"),
            ("max(0, quantity - 100) * 0.002 + min(quantity, 100) * 0.003", "0.34"),
            ("round(2.5, 0) + round(0.125, 2) + ceil(0.1) + floor(-0.1) + abs(-1)", "3.12"),
            ("number(vcpus) * 2 + number(nothing, 7)", "23"),
            ("if(vcpus == 8.0, 1, 0)", "1"),
            // What is not chosen is not looked at.
            ("if(true, 1, 1 / 0)", "1"),
        ] {
            assert_eq!(priced(text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_hostile_texts_end() {
        for (text, expected) in [
            ("", "at character 1: a value is expected"),
            ("price +", "at character 8: a value is expected"),
            ("price price", "at character 7: the end is expected here"),
            ("é + §", "at character 5: `§` is not understood"),
            ("\"open", "at character 1: a text does not end"),
            ("1.2.3", "at character 1: `1.2.3` is no decimal number: digits are expected"),
            ("exec(1)", "at character 5: there is no function `exec`"),
            ("if(1, 2)", "at character 8: `if` takes 3 to 3 values, not 2"),
            ("min(1", "at character 6: `)` is expected"),
            ("1 / (quantity - 120)", "it divides by zero"),
            ("flavor_name * 2", "what is counted with is a number, not \"gpu\""),
            ("if(1, 2, 3)", "a condition is expected, not 1"),
            ("flavor_name", "a price is a number, not \"gpu\""),
            ("round(1, 1000000)", "0 to 28 places can be rounded to"),
        ] {
            assert_eq!(priced(text), Err(expected.to_owned()), "{text}");
        }
        for text in ["(".repeat(4000), "-".repeat(4000), "not ".repeat(1000), "1+".repeat(2000), "abs(".repeat(1000)] {
            assert!(priced(&text).is_err(), "{}", &text[..8]);
        }
        assert!(priced(&" ".repeat(5000)).expect_err("too long").contains("longer than"));
        // Numbers do not grow without end.
        let grown = priced(&format!("9{}", "*99999999999999999999".repeat(39))).expect("a number");
        assert!(grown.len() < 900, "{}", grown.len());
    }
}
