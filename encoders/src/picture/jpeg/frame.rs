//! A frame and its components: what the head says, and what scans make of it.

use super::scan::{self, Part};
use super::segments::{ScanHead, Tables};
use super::{JpegError, Meaning, idct};

/// One component: its sides, and what is decoded of it.
pub(super) struct Component {
    pub(super) id: u8,
    /// Blocks across and down in a unit.
    pub(super) h: usize,
    pub(super) v: usize,
    pub(super) table: usize,
    /// Samples that the picture covers.
    pub(super) width: usize,
    pub(super) height: usize,
    /// In whole units.
    pub(super) blocks_across: usize,
    pub(super) blocks_down: usize,
    /// As it was at the first scan.
    pub(super) quantizer: [u16; 64],
    pub(super) begun: bool,
    /// `[8 * blocks_down, 8 * blocks_across]`.
    pub(super) plane: Vec<u8>,
    /// `[blocks_down, blocks_across, 64]`; of progressive files only.
    pub(super) coefficients: Vec<i16>,
}

impl Component {
    pub(super) fn blocks(&self) -> usize {
        self.blocks_across * self.blocks_down
    }
}

/// What a frame's head says.
pub(super) struct Frame {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) progressive: bool,
    pub(super) units_across: usize,
    pub(super) units_down: usize,
    pub(super) components: Vec<Component>,
}

impl Frame {
    /// Reads the head of a frame that begins with the marker `code`.
    pub(super) fn read(code: u8, inside: &[u8]) -> Result<Self, JpegError> {
        if !(0xc0..=0xc2).contains(&code) {
            return Err(JpegError::Process { code });
        }
        let ([bits, h0, h1, w0, w1, count], rest) =
            inside.split_first_chunk().ok_or(JpegError::BadScan)?;
        if *bits != 8 {
            return Err(JpegError::Precision { bits: *bits });
        }
        let count = usize::from(*count);
        let (width, height) = (
            usize::from(u16::from_be_bytes([*w0, *w1])),
            usize::from(u16::from_be_bytes([*h0, *h1])),
        );
        let (parts, _) = rest.as_chunks::<3>();
        if ![1, 3, 4].contains(&count) {
            return Err(JpegError::Components { count });
        }
        if width == 0 || height == 0 || parts.len() < count {
            return Err(JpegError::BadScan);
        }
        let mut components: Vec<_> = parts[..count]
            .iter()
            .map(|[id, sampling, table]| Component {
                id: *id,
                h: usize::from(sampling >> 4),
                v: usize::from(sampling & 15),
                table: usize::from(*table),
                width: 0,
                height: 0,
                blocks_across: 0,
                blocks_down: 0,
                quantizer: [0; 64],
                begun: false,
                plane: Vec::new(),
                coefficients: Vec::new(),
            })
            .collect();
        let largest = |side: fn(&Component) -> usize| components.iter().map(side).max();
        let (h_max, v_max) = (largest(|c| c.h).unwrap_or(1), largest(|c| c.v).unwrap_or(1));
        let whole = |c: &Component| {
            (1..=4).contains(&c.h)
                && (1..=4).contains(&c.v)
                && h_max.is_multiple_of(c.h)
                && v_max.is_multiple_of(c.v)
        };
        if !components.iter().all(whole) {
            return Err(JpegError::Sampling);
        }
        let units_across = width.div_ceil(8 * h_max);
        let units_down = height.div_ceil(8 * v_max);
        for component in &mut components {
            component.width = (width * component.h).div_ceil(h_max);
            component.height = (height * component.v).div_ceil(v_max);
            component.blocks_across = units_across * component.h;
            component.blocks_down = units_down * component.v;
        }
        Ok(Self {
            width,
            height,
            progressive: code == 0xc2,
            units_across,
            units_down,
            components,
        })
    }

    /// What the components stand for, guessed as libjpeg does.
    pub(super) fn meaning(&self, jfif: bool, adobe: Option<u8>) -> Meaning {
        let ids: Vec<u8> = self.components.iter().map(|c| c.id).collect();
        match (ids[..].len(), jfif, adobe) {
            (1, ..) => Meaning::Gray,
            (3, true, _) => Meaning::Ycc,
            (3, _, Some(0)) => Meaning::Rgb,
            (3, _, Some(_)) => Meaning::Ycc,
            (3, ..) if ids == *b"RGB" => Meaning::Rgb,
            (3, ..) => Meaning::Ycc,
            (.., Some(2)) => Meaning::Ycck,
            _ => Meaning::Cmyk,
        }
    }

    /// Allocates what is decoded into.
    pub(super) fn make_room(&mut self) {
        for component in &mut self.components {
            let samples = 64 * component.blocks();
            // What no scan reaches is gray.
            component.plane = vec![128; samples];
            if self.progressive {
                component.coefficients = vec![0; samples];
            }
        }
    }

    /// Decodes a scan with this head; returns where it ends.
    pub(super) fn scan(
        &mut self,
        tables: &Tables,
        inside: &[u8],
        data: &[u8],
        at: usize,
    ) -> Result<usize, JpegError> {
        let head = ScanHead::read(inside, self.progressive)?;
        let mut parts = Vec::with_capacity(head.parts.len());
        for (id, dc, ac) in &head.parts {
            let found = self.components.iter().position(|c| c.id == *id);
            let component = found.ok_or(JpegError::BadScan)?;
            let of = &mut self.components[component];
            if !of.begun {
                let table = tables.quantizers.get(of.table).copied().flatten();
                of.quantizer = table.ok_or(JpegError::NoQuantizer)?;
                of.begun = true;
            }
            let (dc, ac) = (tables.dc.get(*dc), tables.ac.get(*ac));
            parts.push(Part {
                component,
                dc: dc.and_then(Option::as_deref).filter(|dc| dc.serves_dc()),
                ac: ac.and_then(Option::as_deref),
            });
        }
        scan::decode(self, &parts, head.band, tables.restart_interval, data, at)
    }

    /// Coefficients that all scans of a progressive file have told to samples.
    pub(super) fn finish(&mut self) {
        for component in &mut self.components {
            let stride = 8 * component.blocks_across;
            let rows = component
                .coefficients
                .chunks_exact(64 * component.blocks_across);
            for (row, out) in rows.zip(component.plane.chunks_exact_mut(8 * stride)) {
                for (x, block) in row.as_chunks::<64>().0.iter().enumerate() {
                    let out = &mut out[8 * x..];
                    if block[1..].iter().all(|value| *value == 0) {
                        idct::flat(block[0], component.quantizer[0], out, stride);
                    } else {
                        idct::block(block, &component.quantizer, out, stride);
                    }
                }
            }
            component.coefficients = Vec::new();
        }
    }
}
