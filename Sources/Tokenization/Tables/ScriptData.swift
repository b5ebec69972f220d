// Made by make_tables.py from Unicode 14.0.0 and tokenizers 0.20.3; do not edit.

/// The scripts of all code points.
enum ScriptData {
  /// The scripts, in small letters.
  static let names: StaticString = """
    adlam ahom anatolianhieroglyphs arabic armenian avestan balinese bamum bassavah batak bengali bhaiksuki bopomofo brahmi braille bu\
    ginese buhid canadianaboriginal carian caucasianalbanian chakma cham cherokee chorasmian common coptic cuneiform cypriot cypromino\
    an cyrillic deseret devanagari divesakuru dogra duployan egyptianhieroglyphs elbasan elymaic ethiopic georgian glagolitic gothic g\
    rantha greek gujarati gunjalagondi gurmukhi han hangul hanifirohingya hanunoo hatran hebrew hiragana imperialaramaic inherited ins\
    criptionalpahlavi inscriptionalparthian javanese kaithi kannada katakana kayahli kharoshthi khitansmallscript khmer khojki khudawa\
    di lao latin lepcha limbu lineara linearb lisu lycian lydian mahajani makasar malayalam mandaic manichaean marchen masaramgondi me\
    defaidrin meeteimayek mendekikakui meroiticcursive meroitichieroglyphs miao modi mongolian mro multani myanmar nabataean nandinaga\
    ri newtailue newa nko nushu nyiakengpuachuehmong ogham olchiki oldhungarian olditalic oldnortharabian oldpermic oldpersian oldsogd\
    ian oldsoutharabian oldturkic olduyghur oriya osage osmanya pahawhhmong palmyrene paucinhau phagspa phoenician psalterpahlavi reja\
    ng runic samaritan saurashtra sharada shavian siddham signwriting sinhala sogdian sorasompeng soyombo sundanese sylotinagri syriac\
     tagalog tagbanwa taile taitham taiviet takri tamil tangsa tangut telugu thaana thai tibetan tifinagh tirhuta toto ugaritic vai vi\
    thkuqi wancho warangciti yezidi yi zanabazarsquare
    """

  /// `script.length `, base 36, from U+0000 to U+10FFFF; a script is its index in `names`, or one more than the last.
  static let runs: StaticString = """
    o.1t 1x.q o.6 1x.q o.1b 1x.1 o.f 1x.1 o.5 1x.n o.1 1x.v o.1 1x.ch o.13 1x.5 o.5 c.2 o.k 1j.34 17.4 o.1 17.3 4h.2 17.4 o.1 17.1 4h.\
    4 17.1 o.1 17.1 o.1 17.3 4h.1 17.1 4h.1 17.k 4h.1 17.1r p.e 17.g t.3p 1j.2 t.4p 4h.1 4.12 4h.2 4.1e 4h.2 4.3 4h.1 1g.1j 4h.8 1g.r \
    4h.4 1g.6 4h.b 3.5 o.1 3.6 o.1 3.e o.1 3.3 o.1 3.w o.1 3.a 1j.b 3.q 1j.1 3.30 o.1 3.y 3s.e 4h.1 3s.1o 4h.2 3s.3 3.1c 43.1e 4h.e 2r\
    .1n 4h.2 2r.3 3g.1a 4h.2 3g.f 4h.1 28.s 4h.2 28.1 4h.1 3s.b 4h.5 3.v 4h.1 3.2 4h.6 3.22 o.1 3.t v.29 1j.4 v.f o.2 v.q a.4 4h.1 a.8\
     4h.2 a.2 4h.2 a.m 4h.1 a.7 4h.1 a.1 4h.3 a.4 4h.2 a.9 4h.2 a.2 4h.2 a.4 4h.8 a.1 4h.4 a.2 4h.1 a.5 4h.2 a.p 4h.2 1a.3 4h.1 1a.6 4\
    h.4 1a.2 4h.2 1a.m 4h.1 1a.7 4h.1 1a.2 4h.1 1a.2 4h.1 1a.2 4h.2 1a.1 4h.1 1a.5 4h.4 1a.2 4h.2 1a.3 4h.3 1a.1 4h.7 1a.4 4h.1 1a.1 4\
    h.7 1a.h 4h.a 18.3 4h.1 18.9 4h.1 18.3 4h.1 18.m 4h.1 18.7 4h.1 18.2 4h.1 18.5 4h.2 18.a 4h.1 18.3 4h.1 18.3 4h.2 18.1 4h.f 18.4 4\
    h.2 18.c 4h.7 18.7 4h.1 35.3 4h.1 35.8 4h.2 35.2 4h.2 35.m 4h.1 35.7 4h.1 35.2 4h.1 35.5 4h.2 35.9 4h.2 35.2 4h.2 35.3 4h.7 35.3 4\
    h.4 35.2 4h.1 35.5 4h.2 35.i 4h.a 3z.2 4h.1 3z.6 4h.3 3z.3 4h.1 3z.4 4h.3 3z.2 4h.1 3z.1 4h.1 3z.2 4h.3 3z.2 4h.3 3z.3 4h.3 3z.c 4\
    h.4 3z.5 4h.3 3z.3 4h.1 3z.4 4h.2 3z.1 4h.6 3z.1 4h.e 3z.l 4h.5 42.d 4h.1 42.3 4h.1 42.n 4h.1 42.g 4h.2 42.9 4h.1 42.3 4h.1 42.4 4\
    h.7 42.2 4h.1 42.3 4h.2 42.1 4h.2 42.4 4h.2 42.a 4h.7 42.9 1o.d 4h.1 1o.3 4h.1 1o.n 4h.1 1o.a 4h.1 1o.5 4h.2 1o.9 4h.1 1o.3 4h.1 1\
    o.4 4h.7 1o.2 4h.6 1o.2 4h.1 1o.4 4h.2 1o.a 4h.1 1o.2 4h.d 27.d 4h.1 27.3 4h.1 27.1f 4h.1 27.3 4h.1 27.6 4h.4 27.g 4h.2 27.q 4h.1 \
    3m.3 4h.1 3m.i 4h.3 3m.o 4h.1 3m.9 4h.1 3m.1 4h.2 3m.7 4h.3 3m.1 4h.4 3m.6 4h.1 3m.1 4h.1 3m.8 4h.6 3m.a 4h.2 3m.3 4h.c 44.1m 4h.4\
     o.1 44.s 4h.11 1w.2 4h.1 1w.1 4h.1 1w.5 4h.1 1w.o 4h.1 1w.1 4h.1 1w.n 4h.2 1w.5 4h.1 1w.1 4h.1 1w.6 4h.2 1w.a 4h.2 1w.4 4h.w 45.2\
    0 4h.1 45.10 4h.4 45.13 4h.1 45.10 4h.1 45.f 4h.1 45.7 o.4 45.2 4h.11 2m.4g 13.12 4h.1 13.1 4h.5 13.1 4h.2 13.17 o.1 13.4 1c.74 12\
    .21 4h.1 12.4 4h.2 12.7 4h.1 12.1 4h.1 12.4 4h.2 12.15 4h.1 12.4 4h.2 12.x 4h.1 12.4 4h.2 12.7 4h.1 12.1 4h.1 12.4 4h.2 12.f 4h.1 \
    12.1l 4h.1 12.4 4h.2 12.1v 4h.2 12.w 4h.3 12.q 4h.6 m.2e 4h.2 m.6 4h.2 h.hs 2u.t 4h.3 3f.23 o.3 3f.b 4h.7 3t.m 4h.9 3t.1 1e.l o.2 \
    4h.9 g.k 4h.c 3u.d 4h.1 3u.3 4h.1 3u.2 4h.c 1t.2m 4h.2 1t.a 4h.6 1t.a 4h.6 2j.2 o.2 2j.1 o.1 2j.k 4h.6 2j.2h 4h.7 2j.17 4h.5 h.1y \
    4h.a 1z.v 4h.1 1z.c 4h.4 1z.c 4h.4 1z.1 4h.3 1z.c 3v.u 4h.2 3v.5 4h.b 2p.18 4h.4 2p.q 4h.6 2p.b 4h.3 2p.2 1t.w f.s 4h.2 f.2 3w.1r \
    4h.1 3w.t 4h.2 3w.b 4h.6 3w.a 4h.6 3w.e 4h.2 1j.v 4h.1d 6.25 4h.3 6.1b 4h.1 3q.1s 9.1g 4h.8 9.4 1y.1k 4h.3 1y.f 4h.3 1y.3 2v.1c t.\
    9 4h.7 13.17 4h.2 13.3 3q.8 4h.8 1j.3 o.1 1j.d o.1 1j.7 o.4 1j.1 o.6 1j.1 o.3 1j.2 o.1 4h.5 1x.12 17.5 t.1 1x.1d 17.5 1x.4 17.5 1x\
    .d t.1 1x.1y 17.1 1j.1s 1x.74 17.m 4h.2 17.6 4h.2 17.12 4h.2 17.6 4h.2 17.8 4h.1 17.1 4h.1 17.1 4h.1 17.1 4h.1 17.v 4h.2 17.1h 4h.\
    1 17.f 4h.1 17.e 4h.2 17.6 4h.1 17.j 4h.2 17.3 4h.1 17.9 4h.1 o.c 1j.2 o.2f 4h.1 o.b 1x.1 4h.2 o.b 1x.1 o.f 4h.1 1x.d 4h.3 o.x 4h.\
    f 1j.x 4h.f o.12 17.1 o.3 1x.2 o.6 1x.1 o.r 1x.1 o.h 1x.15 o.3 4h.4 o.if 4h.p o.b 4h.l o.ps e.74 o.hg 4h.2 o.w 4h.1 o.2x 14.2o 1x.\
    w p.38 4h.5 p.7 13.12 4h.1 13.1 4h.5 13.1 4h.2 46.1k 4h.7 46.2 4h.e 46.1 12.n 4h.9 12.7 4h.1 12.7 4h.1 12.7 4h.1 12.7 4h.1 12.7 4h\
    .1 12.7 4h.1 12.7 4h.1 12.7 4h.1 t.w o.2m 4h.y 1b.q 4h.1 1b.2h 4h.c 1b.5y 4h.q o.c 4h.4 o.5 1b.1 o.1 1b.1 o.p 1b.9 1j.4 1c.2 o.8 1\
    b.4 o.4 4h.1 1h.2e 4h.2 1j.2 o.2 1h.3 o.1 1p.2i o.2 1p.3 4h.5 c.17 4h.1 1c.2m 4h.1 o.g c.w o.10 4h.c 1p.g 1c.v 4h.1 o.1s 1c.v o.29\
     1p.1b o.1 1p.2g o.4o 1b.534 o.1s 1b.g74 4f.wd 4h.3 4f.1j 4h.9 22.1c 4a.8c 4h.k t.2o 7.2g 4h.8 o.y 1x.2u o.3 1x.1s 4h.5 1x.2 4h.1 \
    1x.1 4h.1 1x.5 4h.o 1x.e 3r.19 4h.3 o.a 4h.6 3b.1k 4h.8 3h.1y 4h.8 3h.c 4h.6 v.w 1q.1a o.1 1q.1 3e.10 4h.b 3e.1 1c.t 4h.3 1m.26 4h\
    .1 o.1 1m.a 4h.4 1m.2 2m.v 4h.1 l.1j 4h.9 l.e 4h.2 l.a 4h.2 l.4 2m.w 3x.1v 4h.o 3x.5 2d.n 4h.a 12.6 4h.2 12.6 4h.2 12.6 4h.9 12.7 \
    4h.1 12.7 4h.1 1x.17 o.1 1x.9 17.1 1x.4 o.2 4h.4 m.28 2d.1a 4h.2 2d.a 4h.6 1c.8mc 4h.c 1c.n 4h.4 1c.1d 4h.6is 1b.a6 4h.2 1b.2y 4h.\
    12 1x.7 4h.c 4.5 4h.5 1g.q 4h.1 1g.5 4h.1 1g.1 4h.1 1g.2 4h.1 1g.2 4h.1 1g.a 3.37 4h.g 3.a3 o.2 3.28 4h.2 3.1i 4h.7 3.1 4h.w 3.g 1\
    j.g o.a 4h.6 1j.e t.2 o.z 4h.1 o.j 4h.1 o.4 4h.4 3.5 4h.1 3.3r 4h.2 o.1 4h.1 o.w 1x.q o.6 1x.q o.b 1p.a o.1 1p.19 o.2 1c.v 4h.3 1c\
    .6 4h.2 1c.6 4h.2 1c.6 4h.2 1c.3 4h.3 o.7 4h.1 o.7 4h.a o.5 4h.2 21.c 4h.1 21.q 4h.1 21.j 4h.1 21.2 4h.1 21.f 4h.2 21.e 4h.y 21.3f\
     4h.5 o.3 4h.4 o.19 4h.3 o.9 17.27 4h.1 o.d 4h.3 17.1 4h.1b o.19 1j.1 4h.3m 23.t 4h.3 i.1d 4h.f 1j.1 o.r 4h.4 2x.10 4h.9 2x.3 15.r\
     4h.5 2z.17 4h.5 49.u 4h.1 49.1 30.10 4h.4 30.e 4h.16 u.28 3j.1c 37.u 4h.2 37.a 4h.6 36.10 4h.4 36.10 4h.4 10.14 4h.8 j.1g 4h.b j.\
    1 4b.b 4h.1 4b.f 4h.1 4b.7 4h.1 4b.2 4h.1 4b.b 4h.1 4b.f 4h.1 4b.7 4h.1 4b.2 4h.1v 20.8n 4h.9 20.m 4h.a 20.8 4h.o 1x.6 4h.1 1x.16 \
    4h.1 1x.9 4h.1x r.6 4h.2 r.1 4h.1 r.18 4h.1 r.2 4h.3 r.1 4h.2 r.1 1i.m 4h.1 1i.9 39.w 2n.v 4h.8 2n.9 4h.1c 1f.j 4h.1 1f.2 4h.5 1f.\
    5 3c.s 4h.3 3c.1 24.q 4h.5 24.1 4h.1s 2g.w 2f.o 4h.4 2f.k 4h.2 2f.1a 1r.4 4h.1 1r.2 4h.5 1r.8 4h.1 1r.3 4h.1 1r.t 4h.2 1r.3 4h.4 1\
    r.a 4h.7 1r.9 4h.7 32.w 2y.w 4h.w 29.13 4h.4 29.c 4h.9 5.1i 4h.3 5.7 1l.m 4h.2 1l.8 1k.j 4h.5 1k.8 3d.i 4h.7 3d.4 4h.c 3d.7 4h.28 \
    33.21 4h.1j 2w.1f 4h.d 2w.1f 4h.7 2w.6 1d.14 4h.8 1d.a 4h.86 3.v 4h.1 4e.16 4h.1 4e.3 4h.2 4e.2 4h.26 31.14 4h.8 3n.16 4h.m 34.q 4\
    h.12 n.s 4h.k 11.n 4h.9 d.26 4h.4 d.10 4h.9 d.1 1n.1v 4h.a 1n.1 4h.2 3o.p 4h.7 3o.a 4h.6 k.1h 4h.1 k.i 4h.8 25.13 4h.9 3i.2o 4h.1 \
    3m.k 4h.b 1u.i 4h.1 1u.18 4h.1t 2l.7 4h.1 2l.1 4h.1 2l.4 4h.1 2l.f 4h.1 2l.b 4h.6 1v.1n 4h.5 1v.a 4h.6 16.4 4h.1 16.8 4h.2 16.2 4h\
    .2 16.m 4h.1 16.7 4h.1 16.2 4h.1 16.5 4h.1 1j.1 16.9 4h.2 16.2 4h.2 16.3 4h.2 16.1 4h.6 16.1 4h.5 16.7 4h.2 16.7 4h.3 16.5 4h.3v 2\
    q.2k 4h.1 2q.5 4h.u 47.20 4h.8 47.a 4h.4m 3k.1i 4h.2 3k.12 4h.y 2i.1x 4h.b 2i.a 4h.6 2j.d 4h.j 3y.1m 4h.6 3y.a 4h.1i 1.r 4h.2 1.f \
    4h.4 1.n 4h.55 x.1o 4h.2s 4d.2b 4h.c 4d.1 w.7 4h.2 w.1 4h.2 w.8 4h.1 w.2 4h.1 w.u 4h.1 w.2 4h.2 w.c 4h.9 w.a 4h.1y 2o.8 4h.2 2o.1a\
     4h.2 2o.b 4h.r 4g.20 4h.8 3p.2b 4h.d h.g 3a.1l 4h.7b b.9 4h.1 b.19 4h.1 b.e 4h.a b.t 4h.3 2a.w 4h.2 2a.m 4h.1 2a.e 4h.21 2b.7 4h.\
    1 2b.2 4h.1 2b.18 4h.3 2b.1 4h.1 2b.2 4h.1 2b.9 4h.8 2b.a 4h.6 19.6 4h.1 19.2 4h.1 19.11 4h.1 19.2 4h.1 19.6 4h.7 19.a 4h.8m 26.p \
    4h.53 22.1 4h.f 3z.1e 4h.d 3z.1 q.pm 4h.2u q.33 4h.1 q.5 4h.b q.5g 4h.218 s.2r 4h.d z.tr 4h.1 z.9 4h.347 2.g7 4h.6nt 7.ft 4h.7 2k.\
    v 4h.1 2k.a 4h.4 2k.2 40.27 4h.1 40.a 4h.6 8.u 4h.2 8.6 4h.a 38.1y 4h.a 38.a 4h.1 38.7 4h.1 38.l 4h.5 38.j 4h.j4 2c.2j 4h.2t 2h.23\
     4h.4 2h.1l 4h.7 2h.h 4h.1s 41.1 2s.1 1b.2 1s.1 4h.b 1b.2 4h.e 41.4qg 4h.8 41.lc 1s.d2 4h.16 41.9 4h.6w7 1p.4 4h.1 1p.7 4h.1 1p.2 \
    4h.1 1p.1 1h.7z 1p.3 4h.19 1h.3 4h.h 1p.4 4h.8 2s.b0 4h.1s4 y.2z 4h.5 y.d 4h.3 y.9 4h.7 y.a 4h.2 y.4 o.4 4h.3mk 1j.1a 4h.2 1j.n 4h\
    .9 o.38 4h.1o o.6u 4h.a o.13 4h.2 o.1q 1j.3 o.h 1j.8 o.2 1j.7 o.u 1j.4 o.1p 4h.l 17.1y 4h.4a o.k 4h.c o.2f 4h.9 o.p 4h.3r o.2d 4h.\
    1 o.1z 4h.1 o.2 4h.2 o.1 4h.2 o.2 4h.2 o.4 4h.1 o.c 4h.1 o.1 4h.1 o.7 4h.1 o.1t 4h.1 o.4 4h.2 o.8 4h.1 o.7 4h.1 o.s 4h.1 o.4 4h.1 \
    o.5 4h.1 o.1 4h.3 o.7 4h.1 o.9g 4h.2 o.84 4h.2 o.1e 3l.i4 4h.f 3l.5 4h.1 3l.f 4h.uo 1x.v 4h.69 14.7 4h.1 14.h 4h.2 14.7 4h.1 14.2 \
    4h.1 14.5 4h.5x 2t.19 4h.3 2t.e 4h.2 2t.a 4h.4 2t.2 4h.8w 48.v 4h.h 4c.1m 4h.5 4c.1 4h.yo 12.7 4h.1 12.4 4h.1 12.2 4h.1 12.f 4h.1 \
    2e.5h 4h.2 2e.g 4h.15 0.24 4h.4 0.a 4h.4 0.2 4h.lt o.1w 4h.24 o.1p 4h.5e 3.4 4h.1 3.r 4h.1 3.2 4h.1 3.1 4h.2 3.1 4h.1 3.a 4h.1 3.4\
     4h.1 3.1 4h.1 3.1 4h.6 3.1 4h.4 3.1 4h.1 3.1 4h.1 3.1 4h.1 3.3 4h.1 3.2 4h.1 3.1 4h.2 3.1 4h.1 3.1 4h.1 3.1 4h.1 3.1 4h.1 3.1 4h.\
    1 3.2 4h.1 3.1 4h.2 3.4 4h.1 3.7 4h.1 3.4 4h.1 3.4 4h.1 3.1 4h.1 3.a 4h.1 3.h 4h.5 3.3 4h.1 3.5 4h.1 3.h 4h.1g 3.2 4h.7i o.18 4h.4\
     o.2s 4h.c o.f 4h.2 o.f 4h.1 o.f 4h.1 o.11 4h.a o.4u 4h.1k o.q 1h.1 o.2 4h.d o.18 4h.4 o.9 4h.7 o.2 4h.e o.6 4h.4a o.rc 4h.5 o.g 4\
    h.3 o.d 4h.3 o.38 4h.c o.2h 4h.7 o.c 4h.4 o.1 4h.f o.c 4h.4 o.1k 4h.8 o.a 4h.6 o.14 4h.8 o.u 4h.2 o.2 4h.26 o.9g 4h.c o.e 4h.2 o.5\
     4h.3 o.5 4h.3 o.7 4h.9 o.t 4h.3 o.b 4h.5 o.6 4h.a o.a 4h.6 o.8 4h.8 o.7 4h.9 o.43 4h.1 o.1j 4h.11 o.a 4h.sm 1b.wyo 4h.w 1b.37d 4h\
    .7 1b.66 4h.2 1b.4g2 4h.e 1b.5rl 4h.2e7 1b.f2 4h.15u 1b.3t7 4h.fcfq o.1 4h.u o.2o 4h.3k 1j.6o 4h.47bk 
    """
}
