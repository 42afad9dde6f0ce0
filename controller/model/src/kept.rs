//! Values that are shared between many states, hashed once when they are made.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use serde::Serialize;

/// A value with the hash of its stored form. Two are the same when their stored forms are.
#[derive(Debug, Clone)]
pub struct Kept<T> {
    value: Arc<T>,
    digest: u64,
}

impl<T: Serialize> Kept<T> {
    pub fn new(value: T) -> Self {
        let stored = serde_json::to_vec(&value).expect("every key is text");
        let mut hasher = DefaultHasher::new();
        stored.hash(&mut hasher);
        Self {
            value: Arc::new(value),
            digest: hasher.finish(),
        }
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl<T> Eq for Kept<T> {}

impl<T> Hash for Kept<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}
