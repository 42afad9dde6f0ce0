//! A diff written by hand, so that the reader is not only tested with what our writer writes.

/// The stream by hand, as `rootfs::diff`'s layout says.
pub struct Stream(pub Vec<u8>, pub u64, pub u64);

impl Stream {
    pub fn new() -> Self {
        let mut stream = Self::against([0; 32]);
        stream.entry(2, b"", &[]);
        stream
    }

    /// Without an entry.
    pub fn against(base: [u8; 32]) -> Self {
        let mut stream = b"godwitwl\x02\0\0\0".to_vec();
        stream.extend(base);
        Self(stream, 0, 0)
    }

    /// A remove or a keep.
    pub fn path(&mut self, kind: u8, path: &[u8]) -> &mut Self {
        self.0.push(kind);
        self.bytes16(path);
        self.1 += 1;
        self
    }

    /// A patch, up to its runs.
    pub fn patch(&mut self, path: &[u8], size: u64, from: u32) -> &mut Self {
        self.entry(9, path, &[]);
        self.u64s(&[size]);
        self.0.extend(from.to_le_bytes());
        self
    }

    pub fn bytes16(&mut self, bytes: &[u8]) {
        self.0.extend((bytes.len() as u16).to_le_bytes());
        self.0.extend(bytes);
    }

    pub fn entry(&mut self, kind: u8, path: &[u8], xattrs: &[(&[u8], &[u8])]) -> &mut Self {
        self.0.push(kind);
        self.bytes16(path);
        self.0.extend(0o755u16.to_le_bytes());
        self.0.extend([0; 8]);
        self.0.extend(7i64.to_le_bytes());
        self.0.extend(9u32.to_le_bytes());
        self.0.extend((xattrs.len() as u16).to_le_bytes());
        for (name, value) in xattrs {
            self.bytes16(name);
            self.bytes16(value);
        }
        self.1 += 1;
        self
    }

    pub fn file(&mut self, path: &[u8], content: &[u8]) -> &mut Self {
        self.entry(1, path, &[]);
        let size = content.len() as u64;
        self.u64s(&[size, 0, size]);
        self.0.extend(content);
        self.2 += size;
        self.u64s(&[size, 0])
    }

    pub fn target(&mut self, kind: u8, path: &[u8], target: &[u8]) -> &mut Self {
        self.entry(kind, path, &[]);
        self.bytes16(target);
        self
    }

    pub fn device(&mut self, kind: u8, path: &[u8], major: u32, minor: u32) -> &mut Self {
        self.entry(kind, path, &[]);
        self.0.extend(major.to_le_bytes());
        self.0.extend(minor.to_le_bytes());
        self
    }

    pub fn u64s(&mut self, numbers: &[u64]) -> &mut Self {
        self.0.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
        self
    }

    pub fn end(&self) -> Vec<u8> {
        let mut stream = self.0.clone();
        stream.push(0);
        stream.extend(self.1.to_le_bytes());
        stream.extend(self.2.to_le_bytes());
        let hash = blake3::hash(&stream);
        stream.extend(hash.as_bytes());
        stream
    }
}
