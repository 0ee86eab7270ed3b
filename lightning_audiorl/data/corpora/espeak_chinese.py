"""The Mandarin sentences of `EspeakCorpus`: words that espeak-ng's voice ``cmn`` says as they are read."""

from __future__ import annotations

from lightning_audiorl.data.corpora.grammar import Grammar, Part

PEOPLE = ("小明", "小红", "王芳", "李伟", "张丽", "刘强", "陈静", "赵军")
PLACES = ("北京", "上海", "南京", "广州", "西安", "成都", "天津", "武汉")

SLOTS: dict[str, tuple[str, ...]] = {
    "PERSON": PEOPLE,
    "PLACE": PLACES,
    "DAY": ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期天"),
    "NUMBER": ("一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二"),
    "HOUR": ("一点", "两点", "三点", "四点", "五点", "六点", "七点", "八点", "九点", "十点"),
    "COLOUR": ("红色的", "蓝色的", "白色的", "黑色的", "黄色的"),
    "THING": ("书", "信", "灯", "钥匙", "箱子", "电话", "地图", "车票", "桌子", "椅子"),
    "ROOM": ("厨房", "花园", "办公室", "大厅"),
    "WHEN": ("今天", "明天", "后天", "今晚", "现在"),
}
TEMPLATES = (
    # Three and four words.
    "请 找 PERSON",
    "给 PERSON 打电话",
    "WHEN 去 PLACE",
    "WHEN 离开 PLACE",
    "WHEN 给 PERSON 打电话",
    "PERSON WHEN 去 PLACE",
    "去 PLACE 找 PERSON",
    "打开 NUMBER 号 房间",
    # Five.
    "把 COLOUR THING 给 PERSON",
    "PERSON DAY HOUR 到 PLACE",
    "PERSON 在 PLACE 等 PERSON",
    "请 叫 PERSON DAY 来",
    # Six.
    "PERSON 和 PERSON DAY 去 PLACE",
    "把 COLOUR THING 放 在 ROOM",
    "COLOUR THING 在 NUMBER 号 房间",
    "请 关上 NUMBER 号 房间 的 灯",
    # Seven.
    "请 把 COLOUR THING 送 给 PERSON",
    "请 把 COLOUR THING 放 在 ROOM",
    "PERSON DAY 和 PERSON 离开 PLACE 了",
    # Eight.
    "请 DAY HOUR 去 PLACE 车站 等 PERSON",
    "从 PLACE 到 PLACE 的 火车 HOUR 开",
)
"""Words and slots with spaces between, which the sentences do not have; a word has one to three characters."""

VOICES: dict[Part, tuple[str, ...]] = {
    "train": ("cmn", "cmn+m1", "cmn+m3", "cmn+m7", "cmn+f1", "cmn+f2"),
    "dev": ("cmn+m4", "cmn+f4"),
    "test": ("cmn+m5", "cmn+m6", "cmn+f5"),
}
"""Default voices of each part: espeak-ng has one Mandarin voice, and no variant of it is in two parts."""

CHINESE = Grammar("zh", TEMPLATES, SLOTS, names=PEOPLE + PLACES, voices=VOICES)
