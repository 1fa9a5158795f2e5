//! The expression tree that a path's text becomes: what a path can say, whatever its spelling.

use regex::Regex;
use serde_json::Value;

/// A step, or steps put together.
#[derive(Clone, Debug)]
pub(super) enum Expression {
    Root,
    This,
    Parent,
    Fields(Vec<String>),
    AnyField,
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Filter(Vec<Comparison>),
    Child(Box<Expression>, Box<Expression>),
    Descendant(Box<Expression>, Box<Expression>),
    Where(Box<Expression>, Box<Expression>),
    Union(Box<Expression>, Box<Expression>),
    Arithmetic(Operator, Box<Operand>, Box<Operand>),
    Length,
    Sorted,
    Split { separator: String, segment: usize, splits_max: Option<usize> },
    Substitute { pattern: Regex, replacement: String },
}

/// One side of an arithmetic operation: a lone name is a text, as in jsonpath-rw-ext.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    Path(Expression),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// One condition of a filter; without `test` it asks whether the target is there.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) target: Expression,
    pub(super) test: Option<Test>,
}

#[derive(Clone, Debug)]
pub(super) enum Test {
    Equal(Value),
    NotEqual(Value),
    Less(Value),
    LessOrEqual(Value),
    Greater(Value),
    GreaterOrEqual(Value),
    Matches(Regex),
}

impl Expression {
    /// The expression as alternatives of plain names, if it is no more than that.
    pub(super) fn chains(&self) -> Option<Vec<Vec<String>>> {
        /// Unions of unions multiply; beyond this the general way is as good.
        const CHAINS_MAX: usize = 16;
        let chains = match self {
            Self::Root | Self::This => vec![Vec::new()],
            Self::Fields(names) => names.iter().map(|name| vec![name.clone()]).collect(),
            Self::Union(left, right) => {
                let mut chains = left.chains()?;
                chains.extend(right.chains()?);
                chains
            }
            Self::Child(left, right) => {
                // A root on the right starts again from the top.
                if right.has_root() {
                    return None;
                }
                let rights = right.chains()?;
                let lefts = left.chains()?;
                lefts.iter().flat_map(|l| rights.iter().map(|r| l.iter().chain(r).cloned().collect())).collect()
            }
            _ => return None,
        };
        (chains.len() <= CHAINS_MAX).then_some(chains)
    }

    fn has_root(&self) -> bool {
        match self {
            Self::Root => true,
            Self::Union(left, right) | Self::Child(left, right) => left.has_root() || right.has_root(),
            _ => false,
        }
    }
}
