"""The HTML report in a real browser: every result opens from the one file, without an error and without the network."""

import json
import re
import shutil
import time

import pytest

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402

from tests.e2e.test_study import FIGURES  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WIDTHS, HEIGHT = (1280, 800), 900


@pytest.fixture(scope="module")
def page(finished):
    """The report of the tiny study, made by Snakemake, with everything else moved out of reach."""
    finished.snakemake("--report", "report.html")
    return (finished.folder / "report.html").resolve()


@pytest.fixture
def browser(tmp_path):
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromium-driver are not installed: the HTML report is not opened in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.add_argument(f"--window-size={max(WIDTHS)},{HEIGHT}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def problems(driver):
    """Addresses on a network that the page asked for, and errors on its console, since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [found["params"]["request"]["url"] for found in messages if found["method"] == "Network.requestWillBeSent"]
    leaving = [url for url in sent if url.startswith(("http:", "https:", "ws:", "wss:", "ftp:"))]
    return leaving + [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def wait(condition, what="what was asked for", seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the page did not show {what}"
        time.sleep(0.05)


def test_the_report_opens_offline_without_an_error(page, browser):
    browser.get(page.as_uri())
    wait(lambda: "report" in browser.find_element(By.TAG_NAME, "body").text.lower())
    categories = browser.execute_script("return Object.keys(categories)")
    assert {"Answer", "Speed", "Memory", "Accuracy", "Proof", "The paper on trial"} <= set(categories)
    assert problems(browser) == []


def rows(driver):
    return driver.find_elements(By.CSS_SELECTOR, "table tbody tr")


def link(driver, text):
    """The sidebar's link of a text, once it is there."""
    wait(lambda: any(entry.text.strip() == text for entry in driver.find_elements(By.TAG_NAME, "a")))
    return next(entry for entry in driver.find_elements(By.TAG_NAME, "a") if entry.text.strip() == text)


def in_frame(driver, look):
    """What ``look()`` returns inside the frame of the result that is shown."""
    driver.switch_to.frame(driver.find_element(By.TAG_NAME, "iframe"))
    try:
        return look()
    finally:
        driver.switch_to.default_content()


def shown(driver):
    """Whether the result that was clicked shows: a drawn picture, or a page with a table in a frame."""
    for picture in driver.find_elements(By.CSS_SELECTOR, "img[src*='.svg;']:not([src*='logo.svg'])"):
        script = "return arguments[0].complete && arguments[0].naturalWidth > 0 && arguments[0].offsetWidth > 200"
        return driver.execute_script(script, picture)
    if driver.find_elements(By.TAG_NAME, "iframe"):
        return in_frame(driver, lambda: bool(driver.find_elements(By.CSS_SELECTOR, "table thead th")))
    return False


def tallest_row(driver):
    return driver.execute_script(
        "return Math.max(...Array.from(document.querySelectorAll('tr'), (r) => r.offsetHeight))"
    )


def open_results(driver, page, category):
    """Click through a category: yield the name of each result while it shows."""
    driver.get("about:blank")
    driver.get(page.as_uri())
    link(driver, category).click()
    wait(lambda: rows(driver), category)
    for place in range(len(rows(driver))):
        row = rows(driver)[place]
        name = row.find_element(By.TAG_NAME, "td").text
        eye = row.find_element(By.CSS_SELECTOR, "a[iconname='eye']")
        if name.endswith(
            "(text)"
        ):  # a browser has no view of Markdown: it is offered for download, from the page itself
            assert eye.get_attribute("href").startswith("data:text/markdown")
            continue
        eye.click()
        wait(lambda: shown(driver), name)
        assert problems(driver) == [], name
        yield name


@pytest.mark.parametrize("width", WIDTHS)
def test_every_result_opens_by_a_click(page, browser, width):
    browser.set_window_size(width, HEIGHT)
    browser.get(page.as_uri())
    wait(lambda: browser.execute_script("return typeof categories !== 'undefined'"))
    categories = browser.execute_script("return Object.keys(categories)")
    opened = []
    # the narrow window shows the same pages: one category of it will do
    for category in categories if width == max(WIDTHS) else ["Answer"]:
        for name in open_results(browser, page, category):
            opened.append(name)
            if name.endswith("(table)"):
                assert in_frame(browser, lambda: tallest_row(browser)) < 300, name
    if width == max(WIDTHS):
        assert sum(name.endswith("(figure)") for name in opened) == len(FIGURES)
        assert sum(name.endswith("(table)") for name in opened) >= 25
    else:
        assert "tradeoff (figure)" in opened and "scenarios (table)" in opened


def test_a_table_in_the_report_sorts_by_a_click_and_shows_a_model_alone(page, browser):
    browser.get(page.as_uri())
    for name in open_results(browser, page, "Answer"):
        if name == "summary (table)":
            in_frame(browser, lambda: check_sorting(browser, "decode_tokens_per_s"))
            in_frame(browser, lambda: check_choosing(browser, "model", "gpt2", 3))
            return
    raise AssertionError("the report has no summary table")


def check_sorting(driver, name):
    heads = driver.find_elements(By.CSS_SELECTOR, "table thead th")
    place = next(index for index, head in enumerate(heads) if head.text.strip() == name)

    def column():
        cells = driver.find_elements(By.CSS_SELECTOR, f"table tbody tr td:nth-child({place + 1})")
        return [float(cell.get_attribute("textContent").replace(",", "")) for cell in cells]

    heads[place].find_element(By.TAG_NAME, "button").click()
    first = column()
    assert len(first) == 7 and first == sorted(first) and heads[place].get_attribute("aria-sort") == "ascending"
    heads[place].find_element(By.TAG_NAME, "button").click()
    assert column() == first[::-1] and heads[place].get_attribute("aria-sort") == "descending"


def check_choosing(driver, name, value, rows):
    label = next(entry for entry in driver.find_elements(By.TAG_NAME, "label") if entry.text.startswith(name))
    label.find_element(By.XPATH, f".//option[.='{value}']").click()
    said = driver.find_element(By.TAG_NAME, "output").text
    left = [row.text for row in driver.find_elements(By.CSS_SELECTOR, "table tbody tr") if row.is_displayed()]
    assert len(left) == rows and all(value in row for row in left) and said == f"{rows} of 7 rows"


def test_no_figure_or_page_names_another_address(finished):
    pages = [*(finished.results / "tables" / "html").glob("*.html"), *(finished.results / "figures").glob("*.svg")]
    assert len(pages) >= 35
    for path in pages:
        named = re.findall(r"""(?:src|href|action)\s*=\s*["']([^"']+)|url\(["']?([^"')]+)|@import""", path.read_text())
        assert all(("".join(found) or "@import").startswith(("#", "data:")) for found in named), path


def test_a_request_and_an_error_would_be_seen(browser, tmp_path):
    page = tmp_path / "leak.html"
    page.write_text('<img src="http://127.0.0.1:9/leak.png"><script>undefinedFunction()</script>')
    browser.get(page.as_uri())
    found = []
    wait(lambda: found.extend(problems(browser)) or "http://127.0.0.1:9/leak.png" in found, "the request")
    wait(lambda: found.extend(problems(browser)) or any("undefinedFunction" in entry for entry in found), "the error")
