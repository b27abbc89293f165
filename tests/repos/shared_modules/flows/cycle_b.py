import cycle_a
import requests
