use super::*;

/// Noise and ramps in a checkerboard, so that every filter overshoots somewhere.
fn pattern(width: u32, height: u32) -> Picture {
    let mut rgb = Vec::new();
    for y in 0..u64::from(height) {
        for x in 0..u64::from(width) {
            for c in 0..3 {
                let v = x * 2_654_435_761 + y * 40_503 + c * 9_973;
                let noise = (v ^ (v >> 13)).wrapping_mul(2_246_822_519) >> 11;
                let ramp = x * 3 + y * 2 + c * 50;
                let value = if (x / 5 + y / 7) % 2 == 0 {
                    noise
                } else {
                    ramp
                };
                rgb.push((value & 255) as u8);
            }
        }
    }
    Picture::new(width, height, rgb).expect("made to fill the size")
}

/// FNV-1a, 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, byte| {
        (h ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Size before, size after, and a hash per filter.
type Golden = ((u32, u32), (u32, u32), [u64; 6]);

/// Hashes of what Pillow 13.0 makes of the pattern: from size, to size, filters 0 to 5.
#[rustfmt::skip]
const PILLOW: [Golden; 11] = [
    ((61, 23), (32, 12), [
        0xab0c_cdec_cc03_e4a3, 0x6cc2_d295_973e_ed56, 0x5f6c_cdf0_c8e3_af28,
        0xc59c_5e10_4e74_44df, 0xb12f_37ce_badc_6264, 0x8a5b_4361_6e3e_6eef,
    ]),
    ((23, 61), (24, 24), [
        0xff25_76f8_84b8_2274, 0x666c_c372_65d0_be1d, 0x1b39_5eac_1d86_ba8e,
        0xd2a4_6903_fde6_c2d7, 0xd1e5_1b4f_2162_08e5, 0xb188_804c_fa05_b17b,
    ]),
    ((7, 5), (40, 33), [
        0xd7f2_97d8_d220_13f3, 0x3e44_0358_e57b_ed6d, 0xc05d_4ed1_7804_4387,
        0xacbb_20ad_d349_eb87, 0xd7f2_97d8_d220_13f3, 0xba63_6d33_6d05_253d,
    ]),
    ((200, 1), (32, 32), [
        0xb5df_7fa4_90f5_d0e5, 0xc157_6dd4_4a22_9025, 0x824a_76c9_c95c_2fa5,
        0xe2d0_84d9_5092_f665, 0xca2b_70ce_9168_e625, 0xe6ed_b5d7_c5ca_c725,
    ]),
    ((1, 9), (5, 3), [
        0x26ad_dda1_3eef_4e86, 0x8a6f_4a00_f842_7b22, 0xccbe_0cc2_2059_d35c,
        0x791c_4b35_d445_fed1, 0xe10e_79a9_631d_aba4, 0x185d_4700_e410_107e,
    ]),
    ((33, 33), (33, 16), [
        0xfd20_af8f_4d51_777a, 0xeb35_3786_8895_04ba, 0x1064_fba7_a0db_17f2,
        0x32be_f22c_0206_efa8, 0xa458_0060_0178_2534, 0x07c9_6c02_fb83_3d38,
    ]),
    ((40, 17), (11, 17), [
        0xc485_a0df_90ca_be3f, 0xfc6f_c9ce_ac9d_8364, 0x38d0_5871_82f6_0107,
        0x24b4_973b_40bf_542c, 0xd5bb_f123_b858_df4e, 0xa298_a4ca_b2af_9881,
    ]),
    ((130, 90), (64, 64), [
        0x48c6_ee45_f2a6_2b20, 0xff06_0b68_fd27_d360, 0xb215_6cfa_d158_5b55,
        0xab4a_8f4b_f766_4b00, 0xe768_fa0a_6011_0505, 0x9bfa_84b0_7f3a_ffd7,
    ]),
    ((46, 34), (42, 26), [
        0xf419_d5fc_1dd2_908f, 0x8a03_f70b_ad26_bdd5, 0x2b17_e3d5_315f_8f1f,
        0xf4b1_cd18_d3a1_0a87, 0x1131_7330_6377_cb77, 0xa758_a221_6044_094b,
    ]),
    ((66, 70), (63, 60), [
        0xc99e_348c_0031_152c, 0x0348_386f_cb78_3b52, 0xc8f2_a5cf_7f72_090d,
        0xa6c0_3cf3_0cf7_82d5, 0x830f_1f51_3cdb_78b6, 0x5ea2_66fe_4fff_9f14,
    ]),
    ((50, 400), (40, 90), [
        0x0b16_9374_ddbd_4bca, 0x5f6b_a269_041d_3979, 0xb4c1_a238_2c36_1fb9,
        0x0bc5_86ed_090b_3bef, 0x4e9a_8e98_6a92_0da5, 0xe808_0a3e_1e9f_9f8f,
    ]),
];

#[test]
fn every_filter_is_bit_equal_to_pillow() {
    for ((width, height), (to_width, to_height), hashes) in PILLOW {
        let picture = pattern(width, height);
        for (code, expected) in hashes.into_iter().enumerate() {
            let filter = Filter::from_code(code as u64).expect("a filter of Pillow");
            let resized = picture
                .resize(to_width, to_height, filter)
                .expect("sides above zero");
            assert_eq!((resized.width(), resized.height()), (to_width, to_height));
            assert_eq!(
                hash(resized.as_rgb()),
                expected,
                "{width} x {height} to {to_width} x {to_height}, {filter:?}"
            );
        }
    }
}

#[test]
fn a_window_equals_that_part_of_the_whole() {
    let picture = pattern(97, 53);
    for code in 0..6 {
        let filter = Filter::from_code(code).expect("a filter of Pillow");
        for (width, height) in [(40, 22), (200, 53), (97, 30), (97, 53), (110, 31)] {
            let whole = picture
                .resize(width, height, filter)
                .expect("sides above zero");
            let window = Window {
                left: 9,
                top: 3,
                width: 21,
                height: 17,
            };
            let part = resize_window(&picture, width, height, filter, window);
            let expected: Vec<u8> = (3..20)
                .flat_map(|y| &whole.as_rgb()[(y * width as usize + 9) * 3..][..63])
                .copied()
                .collect();
            assert_eq!(part, expected, "{filter:?} to {width} x {height}");
        }
    }
}

#[test]
fn both_passes_are_the_sums_of_weighted_samples() {
    // Rows that fill no block, one, and more; columns that fill no square, one, and more.
    for (rows, columns) in [
        (1_usize, 1_usize),
        (5, 3),
        (15, 6),
        (16, 16),
        (17, 7),
        (33, 40),
        (48, 21),
    ] {
        let stride = 3 * columns;
        let source: Vec<u8> = (0..rows * stride)
            .map(|i| (i * i * 31 + i / 7) as u8)
            .collect();
        for (from, to) in [(columns, 2 * columns + 1), (columns, columns.div_ceil(3))] {
            for filter in [Filter::Box, Filter::Bicubic, Filter::Lanczos] {
                let all = 0..to as u32;
                let x = Coefficients::new(from as u32, to as u32, filter, all.clone());
                let sample = |row: usize, column: usize, channel: usize| {
                    i64::from(source[row * stride + 3 * column + channel])
                };
                let rounded = |sum: i64| {
                    let half = 1_i64 << (PRECISION_BITS - 1);
                    ((sum + half) >> PRECISION_BITS).clamp(0, 255) as u8
                };
                let weighed = |(first, weights): (usize, &[i32]), of: &dyn Fn(usize) -> i64| {
                    let terms = weights.iter().enumerate();
                    rounded(terms.map(|(k, w)| i64::from(*w) * of(first + k)).sum())
                };
                let mut expected = Vec::new();
                for row in 0..rows {
                    for output in x.rows() {
                        expected.extend((0..3).map(|c| weighed(output, &|k| sample(row, k, c))));
                    }
                }
                let what = format!("{rows} x {columns}, {from} to {to}, {filter:?}");
                assert_eq!(pass_x(&source, stride, 0, &x), expected, "{what}");

                let y = Coefficients::new(rows as u32, to as u32, filter, all);
                let mut expected = Vec::new();
                for output in y.rows() {
                    for i in 0..stride {
                        expected.push(weighed(output, &|k| i64::from(source[k * stride + i])));
                    }
                }
                assert_eq!(pass_y(&source, stride, 0, &y), expected, "{what}");
            }
        }
    }
}

#[test]
fn a_side_of_zero_is_refused() {
    assert!(pattern(2, 2).resize(0, 5, Filter::Bicubic).is_err());
    assert!(pattern(2, 2).resize(5, 0, Filter::Nearest).is_err());
}

#[test]
fn only_the_numbers_of_pillow_are_filters() {
    assert_eq!(Filter::from_code(3), Some(Filter::Bicubic));
    assert_eq!(Filter::from_code(6), None);
    assert_eq!(Filter::from_code(u64::MAX), None);
}
