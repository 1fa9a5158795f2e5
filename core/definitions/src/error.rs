//! What can be wrong with a definition file. Everything names the file; what is inside it also line and field.

/// A definition file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// Not there, not allowed, or not UTF-8.
    #[error("cannot read {file}")]
    Unreadable {
        /// Which.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Larger than any honest definition file.
    #[error("{file} is larger than {bytes_max} bytes")]
    TooLarge {
        /// Which.
        file: String,
        /// The limit.
        bytes_max: usize,
    },
    /// More files, definitions or fields than we keep.
    #[error("{file} has more than {count_max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Where.
        file: String,
        /// The limit.
        count_max: usize,
    },
    /// Not YAML.
    #[error("{file}:{line}:{column}: {reason}")]
    Syntax {
        /// Which file.
        file: String,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// The parser's words.
        reason: String,
    },
    /// YAML, but not what a definition says.
    #[error("{file}:{line}:{column}: `{field}`: {reason}")]
    Field {
        /// Which file.
        file: String,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// The way to it, such as `metric[3].volume`.
        field: String,
        /// What is wrong.
        reason: String,
    },
}
