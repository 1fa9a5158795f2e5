//! What can be told of an expression before there is any usage: which names it looks at, and whether it has a price at all.

use std::collections::BTreeSet;

use bigdecimal::BigDecimal;

use super::{Expression, ExpressionError, Node};

/// Names that are no facts of a usage.
const OWN_NAMES: [&str; 4] = ["price", "quantity", "true", "false"];
/// Texts of an expression that are tried as facts.
const TEXTS_MAX: usize = 32;

fn walk<'n>(node: &'n Node, found: &mut dyn FnMut(&'n Node)) {
    found(node);
    match node {
        Node::Number(_) | Node::Text(_) | Node::Name(_) => {}
        Node::Not(inner) | Node::Negative(inner) => walk(inner, found),
        Node::Binary(_, left, right) => {
            walk(left, found);
            walk(right, found);
        }
        Node::Call(_, arguments) => arguments.iter().for_each(|own| walk(own, found)),
    }
}

impl Expression {
    /// The facts of a usage that it looks at.
    pub fn facts(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        walk(&self.root, &mut |node| {
            if let Node::Name(name) = node {
                names.insert(name.as_str());
            }
        });
        names.retain(|name| !OWN_NAMES.contains(name));
        names
    }

    /// Why it has no price for any of many usages: small and large ones, with facts that are nothing, numbers, or around what
    /// the expression itself compares with. `None` where it has one for some of them.
    pub fn never(&self) -> Option<ExpressionError> {
        let mut texts: Vec<String> = ["", "1", "2.5"].map(str::to_owned).into();
        let one = BigDecimal::from(1);
        walk(&self.root, &mut |node| match node {
            Node::Text(text) => texts.push(text.clone()),
            Node::Number(number) => {
                texts.extend([&(number - &one), number, &(number + &one)].map(BigDecimal::to_plain_string));
            }
            _ => {}
        });
        texts.truncate(TEXTS_MAX);
        let amounts = ["1", "2.5", "1000000"].map(|text| text.parse::<BigDecimal>().unwrap_or_default());
        let mut first = None;
        for text in &texts {
            for (price, quantity) in amounts.iter().flat_map(|price| amounts.iter().map(move |own| (price, own))) {
                match self.price(price, quantity, &|_| Some(text.clone())) {
                    Ok(_) => return None,
                    Err(error) => {
                        first.get_or_insert(error);
                    }
                }
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Expression {
        Expression::parse(text).expect("an expression")
    }

    #[test]
    fn an_expression_that_always_divides_by_zero_is_told_before_it_is_used() {
        for (text, why) in [
            ("price / (quantity - quantity)", Some("it divides by zero")),
            ("price / 0", Some("it divides by zero")),
            ("flavor_name", Some("a price is a number, not \"\"")),
            ("price / (quantity - 1)", None),
            ("if(flavor_name == 'gpu', price, price / 0)", None),
            ("number(vcpus) * 2", None),
            ("if(number(vcpus) > 64, price, price / 0)", None),
        ] {
            assert_eq!(read(text).never().map(|error| error.to_string()).as_deref(), why, "{text}");
        }
    }

    #[test]
    fn the_facts_of_an_expression_are_its_names() {
        let expression = read("if(not flavor_name == 'gpu' and true, price, -number(vcpus, 1) * quantity)");
        assert_eq!(expression.facts().into_iter().collect::<Vec<_>>(), ["flavor_name", "vcpus"]);
    }
}
