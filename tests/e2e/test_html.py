"""The HTML report in a real browser: every result opens from the one file, without an error and without the network."""

import json
import shutil
import time

import pytest

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WIDTH, HEIGHT = 1280, 900


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
    options.add_argument(f"--window-size={WIDTH},{HEIGHT}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def requests(driver):
    """Addresses on a network that the page asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [found["params"]["request"]["url"] for found in messages if found["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if url.startswith(("http:", "https:", "ws:", "wss:", "ftp:"))]


def wait(condition, what="what was asked for", seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the page did not show {what}"
        time.sleep(0.05)


def test_the_report_opens_offline_without_an_error(page, browser):
    browser.get(page.as_uri())
    wait(lambda: "report" in browser.find_element(By.TAG_NAME, "body").text.lower())
    categories = browser.execute_script("return Object.keys(categories)")
    assert {"Answer", "Speed", "Memory", "Accuracy", "Proof", "The study on trial"} <= set(categories)
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == [] and requests(browser) == []


def rows(driver):
    return driver.find_elements(By.CSS_SELECTOR, "table tbody tr")


def link(driver, text):
    """The sidebar's link of a text, once it is there."""
    wait(lambda: any(entry.text.strip() == text for entry in driver.find_elements(By.TAG_NAME, "a")))
    return next(entry for entry in driver.find_elements(By.TAG_NAME, "a") if entry.text.strip() == text)


def shown(driver):
    """Whether the result that was clicked shows: a drawn picture, a page with a table, or text in a frame."""
    for picture in driver.find_elements(By.CSS_SELECTOR, "img[src*='.svg;']:not([src*='logo.svg'])"):
        return driver.execute_script("return arguments[0].complete && arguments[0].naturalWidth > 0", picture)
    for frame in driver.find_elements(By.TAG_NAME, "iframe"):
        driver.switch_to.frame(frame)
        try:
            return bool(driver.find_elements(By.TAG_NAME, "table") or driver.find_element(By.TAG_NAME, "body").text)
        finally:
            driver.switch_to.default_content()
    return False


def test_every_result_opens_by_a_click(page, browser):
    browser.get(page.as_uri())
    wait(lambda: browser.execute_script("return typeof categories !== 'undefined'"))
    opened = []
    for category in browser.execute_script("return Object.keys(categories)"):
        browser.get("about:blank")
        browser.get(page.as_uri())
        link(browser, category).click()
        wait(lambda: rows(browser), category)
        for place in range(len(rows(browser))):
            row = rows(browser)[place]
            name = row.find_element(By.TAG_NAME, "td").text
            if name.endswith("(text)"):
                continue  # markdown is offered for download
            row.find_element(By.CSS_SELECTOR, "a[iconname='eye']").click()
            wait(lambda: shown(browser), name)
            opened.append(name)
            assert requests(browser) == [], name
            assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == [], name
    assert sum(entry.endswith("(figure)") for entry in opened) >= 10
    assert sum(entry.endswith("(table)") for entry in opened) >= 20


def test_a_table_sorts_by_a_click(finished, browser):
    browser.get((finished.results / "tables" / "html" / "summary.html").resolve().as_uri())
    heads = browser.find_elements(By.CSS_SELECTOR, "table thead th")
    place = next(index for index, head in enumerate(heads) if "decode_tokens_per_s" in head.text)

    def column():
        cells = browser.find_elements(By.CSS_SELECTOR, f"table tbody tr td:nth-child({place + 1})")
        return [float(cell.text.replace(",", "")) for cell in cells]

    heads[place].click()
    first = column()
    assert first in (sorted(first), sorted(first, reverse=True)) and len(first) == 7
    heads[place].click()
    assert column() == first[::-1]
