//! Domain values as versioned JSON inside gRPC messages: the types are defined once.

use serde::{Serialize, de::DeserializeOwned};

use crate::v1::{Document, Documents};

/// The version this build writes and the highest it reads.
pub const VERSION: u32 = 1;

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("the message carries no document")]
    Missing,
    #[error(
        "document version {0} is newer than {VERSION}, the highest this program reads; upgrade it"
    )]
    Version(u32),
    #[error("document is not a valid {kind}")]
    Json {
        kind: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

impl From<DocumentError> for tonic::Status {
    fn from(error: DocumentError) -> Self {
        let text = crate::failure::chain(&error);
        tonic::Status::invalid_argument(text)
    }
}

/// Writes a value. Values of `godwit-types` have no maps with non-text keys and no failing
/// serializers, so this can't fail for them.
pub fn write<T: Serialize>(value: &T) -> Document {
    let json = serde_json::to_vec(value).expect("types of godwit-types serialize to JSON");
    Document {
        version: VERSION,
        json: json.into(),
    }
}

pub fn write_all<T: Serialize>(values: impl IntoIterator<Item = T>) -> Documents {
    Documents {
        items: values.into_iter().map(|value| write(&value)).collect(),
    }
}

pub fn read<T: DeserializeOwned>(document: &Document) -> Result<T, DocumentError> {
    if document.version > VERSION {
        return Err(DocumentError::Version(document.version));
    }
    serde_json::from_slice(&document.json).map_err(|source| DocumentError::Json {
        kind: std::any::type_name::<T>(),
        source,
    })
}

/// Reads a field that must be there.
pub fn read_field<T: DeserializeOwned>(document: Option<Document>) -> Result<T, DocumentError> {
    read(&document.ok_or(DocumentError::Missing)?)
}

pub fn read_all<T: DeserializeOwned>(documents: &Documents) -> Result<Vec<T>, DocumentError> {
    documents.items.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_types::{Generation, Outcome};

    #[test]
    fn a_document_reads_back_and_a_newer_one_is_refused() {
        let mut document = write(&Outcome::Running { pid: 7 });
        assert_eq!(
            read::<Outcome>(&document).unwrap(),
            Outcome::Running { pid: 7 }
        );
        document.version = VERSION + 1;
        assert!(matches!(
            read::<Outcome>(&document),
            Err(DocumentError::Version(_))
        ));
        let wrong = write(&"text");
        assert!(matches!(
            read::<Generation>(&wrong),
            Err(DocumentError::Json { .. })
        ));
        assert!(matches!(
            read_field::<Outcome>(None),
            Err(DocumentError::Missing)
        ));
    }
}
