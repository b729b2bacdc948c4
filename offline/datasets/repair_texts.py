"""The words of the repair-shop scene: brands, complaints and what shops say of themselves, in Chinese and English.

A text names the brand, the complaint and the shop's specialty. Which complaint it is can be read from the text alone.
"""

from __future__ import annotations

from functools import cache

BRANDS = (
    "丰田", "Volkswagen", "宝马", "Ford", "本田", "Mercedes-Benz", "大众", "Hyundai", "奥迪", "Nissan", "比亚迪", "Toyota",
    "奔驰", "Honda", "吉利", "Kia", "Škoda", "长安", "Renault", "Mazda", "沃尔沃", "Peugeot", "BMW", "别克", "Fiat", "哈弗",
)  # fmt: skip
LATER_BRANDS = (
    "小米", "Rivian", "蔚来", "Polestar", "问界", "Lucid", "极氪", "VinFast", "理想", "Fisker", "零跑", "Genesis", "小鹏",
    "Smart", "阿维塔", "Cupra", "智己", "Scout", "岚图", "Togg",
)  # fmt: skip

# complaint -> ways to say it; shops specialise in the same things
COMPLAINTS: dict[str, tuple[str, ...]] = {
    "engine": ("engine stalls when idling", "发动机怠速抖动"),
    "brakes": ("brakes squeal at low speed", "刹车有异响"),
    "gearbox": ("gearbox jerks when shifting", "变速箱换挡顿挫"),
    "suspension": ("car pulls to one side on the road", "底盘跑偏松散"),
    "battery": ("battery is flat every morning", "电瓶亏电打不着火"),
    "cooling": ("air conditioning blows warm air", "空调不制冷"),
    "body": ("door is scratched and needs paint", "车门划痕要喷漆"),
    "glass": ("windscreen has a crack", "挡风玻璃裂了"),
}
SPECIALTIES: dict[str, tuple[str, ...]] = {
    "engine": ("engine workshop", "发动机大修厂"),
    "brakes": ("brake centre", "刹车专修店"),
    "gearbox": ("transmission specialist", "变速箱专家"),
    "suspension": ("chassis and alignment garage", "底盘定位中心"),
    "battery": ("auto electrics service", "汽车电路维修"),
    "cooling": ("air conditioning shop", "空调冷气专门店"),
    "body": ("body and paint shop", "钣金喷漆店"),
    "glass": ("car glass replacement", "汽车玻璃更换"),
}
KINDS = tuple(COMPLAINTS)
LANGUAGES = 2
_BETWEEN = (", ", "，")


def brand_name(number: int, known: int) -> str:
    """The name of a brand: the first `known` are there from the beginning, later ones appear."""
    if number < known:
        return BRANDS[number]
    later = number - known
    return LATER_BRANDS[later] if later < len(LATER_BRANDS) else f"新品牌 {later + 1}"


def text_of(brand: str, complaint: int, specialty: int, language: int) -> str:
    """What a customer's request says."""
    said, shop = COMPLAINTS[KINDS[complaint]][language], SPECIALTIES[KINDS[specialty]][language]
    return f"{brand} {said}{_BETWEEN[language]}{shop}"


@cache
def complaint_of(text: str) -> int:
    """Which complaint a text tells of; -1 when it tells of none that this scene knows."""
    for number, kind in enumerate(KINDS):
        if any(said in text for said in COMPLAINTS[kind]):
            return number
    return -1
